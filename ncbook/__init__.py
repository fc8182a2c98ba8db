"""ncbook: the helper package of a notebook collection on optimizers and neural collapse.

Rooms in floors; each imports only from floors below its own:
``metrics optim models data theory stats`` < ``train store measure`` < ``sweep cli`` <
``figures live explore pages``. ``parameters`` is the table of what a run can be asked for.
"""

__version__ = "0.1.0"
