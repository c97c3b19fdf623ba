"""Write iris.csv and digits.csv next to this script, from scikit-learn.

The committed files were made with scikit-learn 1.9.1. To make them again,
from the root of the repository:

    pip install scikit-learn==1.9.1 && python examples/data/make_data.py

Both data sets come inside the scikit-learn package: nothing is downloaded
when the script runs, and every run writes the same bytes.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_digits, load_iris

HERE = Path(__file__).resolve().parent

# The digit is written as a word so that a reader that goes by the type of the
# column (number: regression, text: classification) takes it as a class.
DIGITS = "zero one two three four five six seven eight nine".split()


def write_csv(name, header, rows):
    with open(HERE / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{name}: {len(rows)} rows")


def make_iris():
    iris = load_iris()
    species = iris.target_names.tolist()
    header = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    rows = [x + [species[y]] for x, y in zip(iris.data.tolist(), iris.target.tolist())]
    write_csv("iris.csv", header, rows)


def make_digits():
    digits = load_digits()
    header = [f"pixel_{row}_{col}" for row in range(8) for col in range(8)] + ["digit"]
    pixels = digits.data.astype(int).tolist()
    rows = [x + [DIGITS[y]] for x, y in zip(pixels, digits.target.tolist())]
    write_csv("digits.csv", header, rows)


if __name__ == "__main__":
    make_iris()
    make_digits()
