"""`python -m napari_lightsam`: the `lightsam` command where its folder is not searched for commands."""

from napari_lightsam.cli import main

if __name__ == "__main__":  # worker processes import this once more
    main()
