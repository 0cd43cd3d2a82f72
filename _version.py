"""The version, in a file of its own: the build and every layer read it without the package's facade."""

__version__ = "0.1.0"
