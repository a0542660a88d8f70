# SPDX-License-Identifier: Apache-2.0
"""Where MONAI Label looks for the app: ``monailabel start_server --app <this folder> --studies SLIDES``."""

from tral_monai.label_app.app import PathologyApp

__all__ = ["PathologyApp"]
