"""Files that nothing is executed from, made once under the name of all they depend on."""

from .files import CheckpointError, Recipe, load, load_or_make, save
