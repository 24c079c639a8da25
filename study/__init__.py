"""Many runs: every method on every digit and seed, what attacks find, the tables.

It needs a clone of the repository, whose results/ it reads and writes; `python -m study --help`
lists its commands.
"""

from .methods import METHODS, Method
