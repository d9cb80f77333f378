"""x."""


def print_plan(recipe, file, console): ...
