"""Expected perturbation score: record and claims."""
