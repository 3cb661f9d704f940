"""An application that imports much and does little."""

import numpy as np
import pandas as pd


def main(config: object = None) -> None:
    """Say that the first line of work is reached."""
    print("FIRST", pd.DataFrame({"x": np.arange(10)}).x.sum(), flush=True)


if __name__ == "__main__":
    main()
