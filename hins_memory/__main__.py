"""`python -m hins_memory`: the command line, for launchers such as torchrun that start a module."""

from hins_memory.cli import main

if __name__ == "__main__":
    main()
