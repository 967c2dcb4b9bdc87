"""Give someone an account of the MLflow server, or a new password, and print what goes into their environment.

Asks the server as its administrator, whom MLFLOW_AUTH_ADMIN_USERNAME and MLFLOW_AUTH_ADMIN_PASSWORD name.
"""

import os
import secrets
import sys

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client


def main() -> int:
    """Run the command with a member's name; return its exit status."""
    name, password = sys.argv[1], secrets.token_urlsafe(18)
    server = f"http://{os.environ['MLFLOW_HOST']}:{os.environ['MLFLOW_PORT']}"
    for variable in ("USERNAME", "PASSWORD"):
        os.environ[f"MLFLOW_TRACKING_{variable}"] = os.environ[f"MLFLOW_AUTH_ADMIN_{variable}"]
    client = get_app_client("basic-auth", tracking_uri=server)
    try:
        client.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            print(f"{server} gives {name} no account: {error.message}", file=sys.stderr)
            return 1
        client.update_user_password(name, password)
    print(f"export MLFLOW_TRACKING_URI={server}")
    print(f"export MLFLOW_TRACKING_USERNAME={name}")
    print(f"export MLFLOW_TRACKING_PASSWORD={password}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
