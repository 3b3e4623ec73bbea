"""The command `tollgate`: every command of the platform under one name, by who runs it."""
