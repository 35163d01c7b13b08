"""offprint: machine learning papers that run.

The floors, each of which may import only from those named after it: ``cli``, ``daily``, ``lab``, ``papers``, then
``methods``, ``data``, ``models`` and ``statistics`` side by side, and ``store`` at the bottom.
"""

__version__ = "0.1.0"
