"""An application that imports much and does little."""

import numpy as np
import pandas as pd
import scipy.stats
from sklearn.linear_model import Ridge


def main(config: object = None) -> None:
    """Say that the first line of work is reached."""
    x = np.arange(20.0).reshape(-1, 1)
    slope = Ridge(alpha=0.0).fit(x, 2 * x[:, 0]).coef_[0]
    print("FIRST", pd.Series(x[:, 0]).sum(), round(float(slope)), scipy.stats.norm.mean(), flush=True)


if __name__ == "__main__":
    main()
