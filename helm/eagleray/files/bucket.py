"""Wait for the S3 server of this pod, and make its bucket."""

import os
import sys
import time

from eagleray import errors
from eagleray.storage import s3

PATIENCE_S = 60


def main(bucket: str) -> None:
    """Make the bucket, unless it is there."""
    settings = os.environ | {
        "AWS_ENDPOINT_URL_S3": os.environ.get("STORE", "http://127.0.0.1:8333"),
        "AWS_REGION": "us-east-1",
    }
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return s3.create_bucket(bucket, settings)
        except (errors.StorageError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(str(error))
            time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
