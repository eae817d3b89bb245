"""Says whether the native kernel is there: `python -m scanrnn_dist.engine.kernels`."""

from scanrnn_dist.engine.kernels import loaded


def main() -> None:
    """Print one line."""
    library = loaded()
    print(f"native kernel: {library if isinstance(library, str) else f'{library.instructions}, {library.path}'}")


if __name__ == "__main__":
    main()
