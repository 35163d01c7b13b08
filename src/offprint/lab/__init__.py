"""The lab: measures claims, judges them by the rules on record, draws, reports and records what came out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
