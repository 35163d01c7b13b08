"""What the site answers: pages, runs, and the files that go with them."""
