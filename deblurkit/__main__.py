"""Run the command line as `python -m deblurkit`."""

from deblurkit.cli import main

if __name__ == "__main__":
    main()
