# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app: puts a site's parts where MONAI Label's server asks for them."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings as monailabel_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks

import tral_monai
from tral_monai.atomic_file import prepare_folder
from tral_monai.errors import BusyError, ConfigError, TralError, UnknownItemError
from tral_monai.label_app.batch_infer import SiteBatchInfer
from tral_monai.label_app.client_identity import peer, request_at_hand
from tral_monai.label_app.datastore import SlideDatastore
from tral_monai.label_app.infer_task import SiteInferTask
from tral_monai.label_app.safe_names import check_tag, inside
from tral_monai.label_app.scoring import RegionScoring
from tral_monai.label_app.sessions import OwnFolderSessions
from tral_monai.label_app.strategy import ShownRegions, SiteStrategy
from tral_monai.label_app.train_task import SiteTrainTask
from tral_monai.label_app.wsi_answer import write_answer
from tral_monai.rounds.regions.candidates import slide_problems
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.publish import hold_training_lock
from tral_monai.rounds.regions.saved_settings import save_settings
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite, TaskSite
from tral_monai.strategies.registry import strategy_class, strategy_names

logger = logging.getLogger(__name__)

NAME = "tral_monai"
_UPLOAD_S = 3600.0
DESCRIPTION = "Active learning on slides: tissue (TRI-AL) and nuclei (OSAL-ND)"


class PathologyApp(MONAILabelApp):
    """Active learning on whole slides and fields behind QuPath, 3D Slicer, CVAT and DSA.

    Args:
        app_dir: the app's folder, for logs.
        studies: the folder of the slides.
        conf: settings, see :mod:`tral_monai.rounds.regions.settings`.

    Raises:
        ConfigError: a setting is wrong, or ``studies`` is not a folder of this machine.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if studies.startswith(("http://", "https://")):
            raise ConfigError(f"--studies must be a folder of slides, but is the address {studies}")
        self.site = AnnotationSite(studies, read_settings(conf or {}))
        # Uploads are written to files of this process's temporary folder; in our own, a request can be held to it.
        self._uploads = prepare_folder(self.site.folder / "uploads")
        tempfile.tempdir = str(self._uploads)
        labels = [name for task in self.site.tasks.values() for name in task.classes]
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf or {},
            name=NAME,
            description=DESCRIPTION,
            version=tral_monai.__version__,
            labels=list(dict.fromkeys(labels)),
        )
        # It would start a new process for every "next sample"; scores are written when a query is made.
        self._auto_update_scoring = False

    # -- what there is ------------------------------------------------------------------------------------------------

    def init_datastore(self) -> Datastore:
        """The slides of the studies folder."""
        return SlideDatastore(self.studies, self.site)

    def init_infers(self) -> dict[str, InferTask]:
        """One model per task; it is listed once there is one."""
        return {name: SiteInferTask(task, allowed=self._may_read) for name, task in self.site.tasks.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """One trainer per task."""
        return {name: SiteTrainTask(task) for name, task in self.site.tasks.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Every strategy of the registry, as ``<task>_<strategy>``; each task's own choice comes first."""
        strategies: dict[str, Strategy] = {}
        for name, task in self.site.tasks.items():
            shown = ShownRegions()
            own = task.settings.strategy
            for strategy in sorted(strategy_names(name), key=lambda other: (other != own, other)):
                strategies[f"{name}_{strategy}"] = SiteStrategy(task, strategy, _what_it_does(task, strategy), shown)
        return strategies

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """One summary of scores per task."""
        return {f"{name}_regions": RegionScoring(task) for name, task in self.site.tasks.items()}

    def init_batch_infer(self) -> SiteBatchInfer:
        """Inference on many slides, one after the other."""
        return SiteBatchInfer()

    def _load_sessions(self, load: bool = False) -> OwnFolderSessions | None:
        if not load:
            return None
        return OwnFolderSessions(str(self.site.folder / "sessions"), monailabel_settings.MONAI_LABEL_SESSION_EXPIRY)

    def info(self) -> dict[str, Any]:
        """What clients ask for first. ``problems`` is this app's own: slides that cannot be used, and why."""
        meta: dict[str, Any] = super().info()
        if not self.site.catalog.entries():
            nothing = f"no slide or picture lies directly in {self.site.studies.name}; check --studies"
            meta["problems"] = {name: {"": nothing} for name in self.site.tasks}
            return meta
        meta["problems"] = {name: slide_problems(task) for name, task in self.site.tasks.items()}
        return meta

    def on_init_complete(self) -> None:
        """Prepare the web server that has started this app."""
        from tral_monai.label_app.server import bind_to_loopback, install

        web = sys.modules.get("monailabel.app")
        loopback = bind_to_loopback()
        if web is not None:
            origins = [str(origin) for origin in monailabel_settings.MONAI_LABEL_CORS_ORIGINS]
            install(web.app, loopback=loopback, origins=origins)
        super().on_init_complete()
        save_settings(self.site)  # for `python -m tral_monai regions`
        threading.Thread(target=self._take_labels_in, name="labels", daemon=True).start()

    # -- what is asked for --------------------------------------------------------------------------------------------

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next open region.

        Raises:
            UnknownItemError: there is no such strategy or slide.
            RoundSpentError: nothing is open; the message says what to do.
        """
        strategy = self._one_of(self._strategies, str(request.get("strategy")), "strategy")
        answer: dict[str, Any] = strategy(request, self.datastore())
        answer["path"] = self.datastore().get_image_uri(answer["id"])
        return answer

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Take a submission in; what counted and what did not goes back to the client."""
        logger.info("label saved for %s", image_id)
        reports = sync_labels(self.site, client=peer(), submitted=self.datastore().stored_label())
        return {name: report.to_dict() for name, report in reports.items()}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Infer on one picture, or with ``save_label`` on a slide whose result is kept under ``label_tag``.

        Raises:
            UnknownItemError: there is no such model or image.
            ConfigError: the result would be saved as a person's label.
        """
        task = self._infer_task(request)
        image_id = str(request.get("image") or "")
        request = {**request, "image": str(self._image_file(image_id))}
        if not request.get("save_label"):
            file, params = task(request)
            return {"label": file, "tag": DefaultLabelTag.ORIGINAL.value, "file": file, "params": params}
        tag = str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
        if tag == DefaultLabelTag.FINAL.value:
            raise ConfigError("what a model found cannot be saved as 'final', for these labels are people's answers")
        check_tag(tag)
        result = self.infer_wsi({**request, "image": image_id, "output": "asap"})
        info = {"model": request["model"], "params": result["params"]}
        try:
            label = self.datastore().save_label(image_id, result["file"], tag, info)
        finally:
            Path(result["file"]).unlink(missing_ok=True)
        return {"label": label, "tag": tag, "file": None, "params": result["params"]}

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Infer on a region of a slide or on all of it.

        Raises:
            UnknownItemError: there is no such model or slide.
        """
        task = self._infer_task(request)
        image = self._image_file(str(request.get("image") or ""))
        result = task.infer_slide({**request, "image": str(image)})
        return write_answer(result, request.get("output"), self._uploads)

    def bundle_path(self, model: str | None) -> None:
        """None: trainings need no further path. MONAI Label asks this when a training is posted.

        Raises:
            UnknownItemError: there is no such trainer.
            BusyError: a training is posted while another one waits or runs.
        """
        if model is not None:
            self._one_of({**self._trainers, **self._infers, **self._scoring_methods}, model, "trainer")
            request = request_at_hand.get()
            if request.method == "POST" and request.path.startswith("/train"):
                self._refuse_second_training(model)

    def model_file(self, model: str, validate: bool = True) -> str | None:
        """The current model's file, to be downloaded.

        Raises:
            UnknownItemError: there is no such model.
            ConfigError: it shall be replaced or removed.
        """
        path: str | None = self._one_of(self._infers, model, "model").get_path(validate)
        if request_at_hand.get().method in ("PUT", "DELETE"):
            raise ConfigError(
                f"models are published by trainings only, which measure them first; to begin with one of your own, "
                f"start the server with --conf {model}_checkpoint FILE, and to go back, train with rollback"
            )
        return path

    def cleanup_sessions(self) -> None:
        """Remove sessions whose time is over, and uploads that a request which failed has left."""
        super().cleanup_sessions()
        for file in self._uploads.iterdir():
            with contextlib.suppress(OSError):
                if file.is_file() and time.time() - file.stat().st_mtime > _UPLOAD_S:
                    file.unlink()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _refuse_second_training(self, model: str) -> None:
        if any(
            one["status"] in ("SUBMITTED", "RUNNING") and one["request"].get("model") == model for one in tasks("train")
        ):
            raise BusyError(f"a training of '{model}' is going on; wait for its end (GET /train/), or stop it first")
        if model in self._trainers:
            hold_training_lock(self.site.task(model)).release()  # a training may outlive the server that began it

    def _infer_task(self, request: Mapping[str, Any]) -> SiteInferTask:
        task = self._one_of(self._infers, str(request.get("model")), "model")
        if not task.is_valid():
            raise UnknownItemError(
                f"there is no trained model '{request['model']}' yet; label a round and train (POST /train/"
                f"{request['model']}), or start with --conf {request['model']}_checkpoint FILE"
            )
        assert isinstance(task, SiteInferTask)
        return task

    def _image_file(self, image: str) -> Path:
        """The file of an image, by its id or as uploaded with the request."""
        path = Path(image)
        if path.is_absolute():
            if not self._may_read(path):
                raise UnknownItemError(f"there is no image '{image}' here; name a slide of the studies folder")
            return path
        uri = self.datastore().get_image_uri(image)
        if not uri:
            self.site.catalog.find(image)  # says what there is
            raise UnknownItemError(f"there is no image '{image}' in the studies folder")
        return Path(uri)

    def _may_read(self, path: Path) -> bool:
        """Whether a file lies among the slides, the uploads or the sessions."""
        if not path.is_file():
            return False
        entries = self.site.catalog.entries()
        if path.name in entries and path.resolve() == entries[path.name].path.resolve():
            return True
        own = (self.site.studies, self._uploads, self.site.folder / "sessions")
        return any(inside(path, folder) for folder in own)

    def _one_of(self, tasks: Mapping[str, Any], name: str, what: str) -> Any:
        if name not in tasks:
            raise UnknownItemError(f"there is no {what} '{name}'; choose one of {', '.join(tasks)}")
        return tasks[name]

    def _take_labels_in(self) -> None:
        """Take in what was dropped into the labels folder while the server was not running."""
        try:
            sync_labels(self.site)
        except TralError as error:
            logger.warning("%s", error)


def _what_it_does(task: TaskSite, strategy: str) -> str:
    text = inspect.getdoc(strategy_class(strategy, task.name)) or strategy
    first = " ".join(text.split("\n\n")[0].split())
    return f"{first} (this site's choice)" if strategy == task.settings.strategy else first
