"""TensorFlow Serving's monitoring_config_file: read from text, and what of it has a meaning here."""

from pathlib import Path

from google.protobuf import text_format

from protos.serving.startup_pb2 import MonitoringConfig
from server.errors import InvalidRequest


def metrics_paths(file: Path | None) -> tuple[str, ...]:
    """Where the file wants the metrics, besides where they always are.

    Args:
        file: A text-format MonitoringConfig; None if there is none.

    Raises:
        InvalidRequest: The file cannot be read or does not parse, or its path does not begin with a slash.
    """
    if file is None:
        return ()
    try:
        config = text_format.Parse(file.read_text(), MonitoringConfig()).prometheus_config
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file}: {error}") from error
    if not (config.enable and config.path):
        return ()
    if not config.path.startswith("/"):
        raise InvalidRequest(f"{file}: path must begin with a slash, not {config.path!r}")
    return (config.path,)
