"""ncbook: the helper package of a notebook collection on optimizers and neural collapse.

Modules in floors; each imports only from floors below its own:
``metrics optim models data theory`` < ``train store`` < ``sweep`` < ``figures claims``.
"""

__version__ = "0.1.0"
