"""Turn a release folder into a Parquet folder that loads at once, here or on the Hub.

    python examples/prepare_data.py tvqa_plus ../shared/real/tvqa_plus --output_dir data/tvqa_plus

Tells how many questions have subtitles, objects, answers and usable spans; a part that is missing altogether stops it
unless it is switched off.
"""

import argparse
import logging

from processing import load_videoqa
from processing.loaders import LOADERS, save_parquet
from processing.loaders.tables import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(LOADERS))
    parser.add_argument("data_dir")
    parser.add_argument("--output_dir", required=True, help="a folder that does not exist yet")
    parser.add_argument("--splits", nargs="+", help="default: those that the loader takes by itself")
    parser.add_argument("--without", nargs="+", default=[], choices=PARTS, help="parts to do without")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the loaders tell what they found
    options = dict.fromkeys(args.without, False)
    if args.splits:
        options["splits"] = args.splits
    data = load_videoqa(args.name, args.data_dir, **options)
    print(f"Written: {save_parquet(data, args.output_dir)}")


if __name__ == "__main__":
    main()
