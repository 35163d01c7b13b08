"""The checker of argument types and shapes in the test run: beartype, taking an int where a float is expected."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
