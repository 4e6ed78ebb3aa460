"""The first model of a new state directory: trained beside the starting services, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from engine.config import Config, dump
from engine.model.bundle import BundleError, Registry

COMMAND = "import sys; from engine.model.train import main; sys.exit(main(sys.argv[1:]))"


class FirstModel:
    """``ready`` gates ml-service: True once a model can be loaded. Only ``sim`` makes a synthetic one by itself."""

    def __init__(self, config: Config, tell: Callable[[str], None]) -> None:
        self._config = config
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._done = False
        self._said = False
        registry = Registry(config.state_dir / "models")
        registry.import_copies()
        try:
            registry.load()
            self._done = True
        except BundleError as error:
            if registry.current is not None:
                self._done = True  # damaged: ml-service names it and the remedy; nothing is replaced silently
                tell(str(error))
            elif config.instance.mode == "sim":
                self._start()

    def _start(self) -> None:
        log = self._config.state_dir / "logs" / "retrain.log"
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The trainer is a program of its own that reads a file: it gets exactly the configuration that is meant.
        file = log.with_name("retrain.toml")
        file.write_text(dump(self._config))
        market = self._config.paper.market
        material = "a generated market" if market == "synthetic" else market
        self._tell(f"no model yet: training a first one on {material} (progress in {log})")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "--retrain", "--synthetic", "--config", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone
            )

    def ready(self) -> bool:
        """May ml-service start? Says once why not."""
        if self._done:
            return True
        if self._process is None:
            if not self._said:
                self._said = True
                self._tell(
                    f"no model in {self._config.state_dir / 'models'}, and mode {self._config.instance.mode} trades on "
                    "none made of synthetic data: record with `l2dash up --collect`, then `l2dash retrain`"
                )
            return False
        code = self._process.poll()
        if code is None:
            return False
        self._process = None
        if Registry(self._config.state_dir / "models").current is not None:
            self._done = True
            self._tell("first model trained")
            return True
        self._said = True
        self._tell(
            f"P2: the first model could not be trained (exit {code}): see logs/retrain.log, then `l2dash retrain`"
        )
        return False

    def close(self) -> None:
        """End a training that still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)
