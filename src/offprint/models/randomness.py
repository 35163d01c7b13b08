"""Make torch's global random state follow an explicit generator, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


def as_generator(generator: object) -> torch.Generator:
    """Return the generator itself, or a fresh CPU generator with this seed.

    Parameters
    ----------
    generator : torch.Generator or int
        A generator, or a seed in [0, 2^63).

    Returns
    -------
    torch.Generator

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If the seed is negative.

    Examples
    --------
    >>> as_generator(3).initial_seed()
    3
    """
    if isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, bool) or not isinstance(generator, int):
        raise TypeError(f"generator must be a torch.Generator or an int seed; got {type(generator).__name__}")
    if generator < 0:
        raise ValueError(f"generator must be a torch.Generator or a seed of at least 0; got {generator}")
    return torch.Generator().manual_seed(generator)


@contextmanager
def seeded(
    generator: torch.Generator | int | None,
    device: torch.device | str = "cpu",
) -> Iterator[None]:
    """Draw from torch's global random state as ``generator`` decides, then restore that state.

    Layers draw their first weights and the units they drop from the global state: this is how they follow a generator.

    Parameters
    ----------
    generator : torch.Generator, int or None
        One number is drawn from it to seed the global state inside the block. With ``None`` nothing is changed.
    device : torch.device or str
        A device whose state is seeded and restored besides the CPU's.

    Yields
    ------
    None

    Raises
    ------
    TypeError
        If ``generator`` is none of these.
    ValueError
        If a seed is negative.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     second = torch.rand(2)
    >>> bool((first == second).all()), bool((torch.get_rng_state() == before).all())
    (True, True)
    """
    if generator is None:
        yield
        return
    source = as_generator(generator)
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    with _forked(torch.device(device), seed):
        yield


@contextmanager
def _forked(device: torch.device, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed devices that are not in use, and is slow at it.
        torch.default_generator.manual_seed(seed)
        if device.type == "cpu":
            yield
            return
        module = torch.get_device_module(device)
        with module.device(device) if device.index is not None else nullcontext():
            state = module.get_rng_state()
            module.manual_seed(seed)
            try:
                yield
            finally:
                module.set_rng_state(state)
