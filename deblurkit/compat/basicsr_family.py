"""Options files of BasicSR and its forks as native options. (Facts: TRAINING_ENGINE.md of the project's notes.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deblurkit.compat.dialect import Dialect
from deblurkit.compat.family_data import translate_dataset
from deblurkit.compat.realesrgan import MODELS, top_level
from deblurkit.compat.sections import Section, Translation, whole_number
from deblurkit.metrics import PROTOCOLS

#: Schedulers that go on from the rate before, so that a warm-up leaves its mark on them.
_DRIFTING = ("MultiStepLR", "MultiStepRestartLR", "TrueCosineAnnealingLR")
#: Native keys of `train` that may stand in a foreign file: what the tools have no word for.
_NATIVE_TRAIN = (
    "accumulate",
    "channels_last",
    "checkpoint_frames",
    "checkpoint_modules",
    "compile",
    "hooks",
    "precision",
    "static_graph",
    "sync_bn",
    "tf32",
    "truncate",
)
#: The tools delete no checkpoint.
_KEEP_ALL = 1_000_000


def translate_family(translation: Translation, dialect: Dialect) -> None:
    """Fill `translation.target` with the native form of a file written for `dialect`."""
    root = Section(translation, (), translation.source.values)
    translation.target.values["schema"] = "deblurkit/1"
    root.move("name", "name")
    native = dialect.models.get(root.get("model_type"))
    if native:
        root.set(native, "model_type", "model_type")
    for key in ("scale", "num_gpu", "manual_seed", "plugins"):
        root.move(key, key)
    root.ignore("dist_params", why="torchrun's variables say it")
    root.ignore("is_train")
    root.ignore("suffix", "crop_border", "save_img", why="stands under val")  # of older files for tests
    for key in ("network_g", "network_d"):
        network = root.section(key)
        if network:
            network.rest(key)
    _path(root, dialect)
    datasets = root.section("datasets")
    if datasets:
        for key in datasets.values:
            entry = datasets.section(key)
            if entry:
                translate_dataset(entry, dialect, root)
    if datasets and "train" not in datasets:
        root.ignore("train", "find_unused_parameters", why="for training")
    train = root.section("train") if datasets and "train" in datasets else None
    if train:
        root.move("find_unused_parameters", "train", "find_unused_parameters")
        _train(train, dialect, root.get("model_type"))
    if root.get("model_type") in MODELS:
        _targets(root, top_level(root, root.get("model_type")))
    _val(root, dialect)
    _logger(root)
    root.close()


def _targets(root: Section, targets: Mapping[str, str]) -> None:
    """Which entry of a sample each loss is compared with (Real-ESRGAN)."""
    train = root.translation.target.values.get("train", {})
    for name, target in targets.items():
        mapping = train.get("gan") if name == "gan" else train.get("losses", {}).get(name)
        if mapping is not None:
            mapping["target"] = target


def _path(root: Section, dialect: Dialect) -> None:
    # BasicSR starts anew unless it is told to go on
    if not dialect.resumes:
        root.translation.target.values.setdefault("path", {})["resume"] = "none"
    path = root.section("path")
    if path is None:
        return
    for role in ("g", "d"):
        path.move(f"pretrain_network_{role}", "path", f"pretrain_network_{role}")
        path.move(f"strict_load_{role}", "path", f"strict_load_{role}")
    for role, keys in dialect.param_keys.items():
        key = next((key for key in keys if key in path), keys[0])
        for other in keys:
            path.get(other)
        wanted = path.values.get(key, "params")
        if path.get(f"pretrain_network_{role}") and wanted in ("params", "params_ema"):
            path.set(wanted, key, "path", f"param_key_{role}")  # every other key, and `~`, is found by itself
    path.move("io_g", "path", "io_g")
    path.move("resume_state", "path", "resume")
    path.move("experiments_root", "path", "experiments_root")
    path.move("results_root", "path", "results_root")
    path.ignore("ignore_resume_networks", "root", "visualization", "models", "training_states", "log")
    path.close()


def _train(train: Section, dialect: Dialect, model_type: str) -> None:
    train.move("total_iter", "train", "total_iter", change=whole_number)
    warmup = train.number("warmup_iter", -1)
    if warmup > 0:
        train.move("warmup_iter", "train", "warmup_iter", change=whole_number)
    for key in ("optim_g", "optim_d"):
        optimizer = train.section(key)
        if optimizer:
            optimizer.rest("train", key)
    _scheduler(train, dialect, warmup)
    if train.number("ema_decay", 0):
        train.set(float(train.number("ema_decay", 0)), "ema_decay", "train", "ema_decay")
    clip = train.get("use_grad_clip", dialect.grad_clip)
    if dialect.grad_clip is None and clip is not None:
        train.translation.problem(train.at("use_grad_clip"), f"{dialect.name} does not know this key")
    elif clip:
        train.set(0.01, "use_grad_clip", "train", "grad_clip")
    mixing = train.section("mixing_augs") if dialect.progressive else None
    if mixing:
        _mixup(mixing)
    train.refuse("mixup", why="the tool calls a function for this that does not exist; remove it")
    _losses(train, dialect, model_type)
    _groups(train, model_type)
    for key in _NATIVE_TRAIN:
        train.move(key, "train", key)
    train.close()


def _scheduler(train: Section, dialect: Dialect, warmup: float) -> None:
    scheduler = train.section("scheduler")
    if scheduler is None:
        return
    drifts = scheduler.get("type") in _DRIFTING and warmup > 1
    to = ("train", "scheduler", "schedule") if drifts else ("train", "scheduler")
    if drifts:
        scheduler.set("WarmupDriftLR", "type", "train", "scheduler", "type")
        train.set(int(warmup), "warmup_iter", "train", "scheduler", "warmup_iter")
    scheduler.alias(dialect.schedulers, *to, kind="scheduler")
    scheduler.rest(*to)


def _mixup(mixing: Section) -> None:
    if mixing.get("mixup"):
        to = ("datasets", "train", "mixup")
        key = "mixup_beta" if "mixup_beta" in mixing else "mixup"
        mixing.set(float(mixing.number("mixup_beta", 1.2)), key, *to, "beta")
        mixing.move("use_identity", *to, "use_identity")
    mixing.get("mixup_beta"), mixing.get("use_identity")
    mixing.close()


def _losses(train: Section, dialect: Dialect, model_type: str) -> None:
    pixel = train.section("pixel_opt")
    if pixel:
        _pixel_loss(pixel, dialect, "pixel")
    ldl = train.section("ldl_opt")
    if ldl:
        if ldl.get("type") != "L1Loss" or ldl.get("reduction", "mean") != "mean":
            train.translation.problem(ldl.at("type"), "the artefact map goes with L1Loss and reduction mean only")
        ldl.set("LDLLoss", "type", "train", "losses", "ldl", "type")
        ldl.move("loss_weight", "train", "losses", "ldl", "weight")
        ldl.close()
    perceptual = train.section("perceptual_opt")
    if perceptual:
        _perceptual_loss(perceptual)
    gan = train.section("gan_opt")
    if gan:
        _gan(gan, model_type)
        for key in ("net_d_iters", "net_d_init_iters"):
            train.move(key, "train", "gan", key)


def _gan(gan: Section, model_type: str) -> None:
    to = ("train", "gan")
    native = {"GANLoss": "GANLoss", "MultiScaleGANLoss": "GANLoss"}
    if model_type == "ESRGANModel":  # relativistic: logits against the mean of the batch's logits of the other side
        native = {"GANLoss": "RelativisticGANLoss"}
    if gan.alias(native, *to, kind="adversarial loss") == "RelativisticGANLoss":
        if gan.get("gan_type") != "vanilla" or (gan.get("real_label_val", 1), gan.get("fake_label_val", 0)) != (1, 0):
            gan.translation.problem(gan.at("gan_type"), "ESRGANModel: vanilla with the labels 1 and 0 is here")
        gan.set(0, "type", *to, "pool_size")
    else:
        gan.move("real_label_val", *to, "real_label")
        gan.move("fake_label_val", *to, "fake_label")
    gan.move("gan_type", *to, "gan_type")
    gan.move("loss_weight", *to, "weight")
    gan.close()


def _pixel_loss(loss: Section, dialect: Dialect, name: str) -> None:
    to = ("train", "losses", name)
    native = loss.alias(dialect.losses, *to, kind="loss")
    if native in ("PSNRLoss", "MPRNetCharbonnierLoss"):
        if loss.get("reduction", "mean") != "mean":
            loss.translation.problem(loss.at("reduction"), "this loss is a mean")
        loss.move("toY", *to, "to_y")
    if native == "MPRNetCharbonnierLoss":
        loss.ignore("loss_weight", why="the tool ignores it")
    else:
        loss.move("loss_weight", *to, "weight")
    loss.rest(*to)


def _perceptual_loss(loss: Section) -> None:
    to = ("train", "losses", "perceptual")
    if loss.number("perceptual_weight", 1.0) <= 0 and loss.number("style_weight", 0.0) <= 0:
        return  # as upstream
    loss.alias({"PerceptualLoss": "PerceptualLoss"}, *to, kind="loss")
    if loss.get("vgg_type", "vgg19") != "vgg19":
        loss.translation.problem(loss.at("vgg_type"), "only vgg19 is here")
    if loss.get("use_input_norm", True) is False:
        loss.set("none", "use_input_norm", *to, "input_norm")
    for key in ("layer_weights", "range_norm", "perceptual_weight", "style_weight", "criterion"):
        loss.move(key, *to, key)
    loss.close()


def _groups(train: Section, model_type: str) -> None:
    """Rates and frozen parameters by name. Upstream frees parameters *in* the iteration that is named."""
    groups: list[tuple[str, dict[str, Any]]] = []
    if model_type in ("VideoRecurrentModel", "VideoRecurrentGANModel"):
        frozen = max(int(train.number("fix_flow", 0)) - 1, 0)
        rate = float(train.number("flow_lr_mul", 1))
        if frozen or rate != 1:
            key = "fix_flow" if "fix_flow" in train else "flow_lr_mul"
            groups += [
                (key, {"match": ["*spynet*"], "lr_mul": rate, "frozen_until": frozen, "optional": True}),
                (key, {"match": ["*edvr*"], "frozen_until": frozen, "optional": True}),
            ]
    elif model_type == "EDVRModel":
        frozen = max(int(train.number("tsa_iter", 0)) - 1, 0)
        rate = float(train.number("dcn_lr_mul", 1))
        if frozen:
            groups.append(("tsa_iter", {"match": ["*fusion*"]}))
        if rate != 1:
            groups.append(
                ("dcn_lr_mul", {"match": ["*dcn*"], "lr_mul": rate, "frozen_until": frozen, "optional": True})
            )
        if frozen:
            groups.append(("tsa_iter", {"match": ["*"], "frozen_until": frozen, "optional": True}))
    if groups:
        train.set([group for _, group in groups], groups[0][0], "train", "param_groups")


def _val(root: Section, dialect: Dialect) -> None:
    val = root.section("val")
    if val is None:
        return
    val.move("val_freq", "val", "val_freq", change=whole_number)
    val.move("save_img", "val", "save_img")
    for key, why in dialect.val_ignored.items():
        harmless = key == "use_image"  # true is what is done here; of all others it is false
        if val.get(key) not in (None, harmless):
            val.ignore(key, why=why)
    metrics = val.section("metrics")
    found: dict[str, Any] = {}
    for name in metrics.values if metrics else ():
        assert metrics is not None
        metric = metrics.section(name)
        mapping = _metric(metric, dialect) if metric else None
        if mapping:
            found[name] = mapping
    crops = _crops(val, root.get("scale", 1)) if dialect.grids else None
    standard = {name: dict(mapping) for name, mapping in PROTOCOLS.get(dialect.protocol).metrics.items()}
    if crops:
        val.set({"metrics": found or standard, "crops": crops}, "grids", "val", "protocol")
    elif found and metrics:
        val.set(dialect.protocol if found == standard else {"metrics": found}, "metrics", "val", "protocol")
    elif dialect.protocol != "basicsr-rgb/1":
        root.set(dialect.protocol, "val", "val", "protocol")
    val.close()


def _crops(val: Section, scale: Any) -> dict[str, Any] | None:
    """NAFNet's `grids`: sides of crops in pixels of the sharp frame, or as shares of its own."""
    wanted = val.get("grids", False)
    crops: dict[str, Any] = {}
    for axis in ("height", "width"):
        key = f"crop_size_{axis[0]}"
        pixels, ratio = val.get(key), val.get(f"{key}_ratio")
        if pixels is not None:
            crops[axis] = int(val.number(key, 1)) // int(scale if isinstance(scale, int) and scale > 0 else 1)
        elif ratio is not None:
            crops[f"{axis}_ratio"] = float(val.number(f"{key}_ratio", 1))
        elif wanted:
            val.translation.problem(val.at(key), f"missing: grids needs {key} or {key}_ratio")
    return crops if wanted else None


def _metric(metric: Section, dialect: Dialect) -> Mapping[str, Any] | None:
    name = metric.get("type")
    higher = metric.get("better", "higher")
    mapping = {key: metric.get(key, default) for key, default in (("crop_border", 0), ("test_y_channel", False))}
    metric.ignore("input_order")
    if higher not in ("higher", "lower"):
        metric.translation.problem(metric.at("better"), f"is higher or lower, got {higher!r}")
    if not isinstance(name, str):
        metric.translation.problem(metric.at("type"), "should name a metric, such as calculate_psnr")
        return None
    if name not in dialect.metrics:
        metric.ignore("type", why=f"{dialect.name}'s {name} is not here: no such figure is computed")
        for key in metric.values:
            metric.get(key)
        return None
    metric.close()
    return {"type": dialect.metrics[name], **mapping}


def _logger(root: Section) -> None:
    logger = root.section("logger")
    if logger is None:
        return
    for key in ("print_freq", "save_checkpoint_freq"):
        logger.move(key, "logger", key, change=whole_number)
    logger.move("use_tb_logger", "logger", "use_tb_logger")
    wandb = logger.section("wandb")
    if wandb:
        run = wandb.get("resume_id")
        project = wandb.get("project")
        if project and "train" in root.translation.target.values:
            hook = {"type": "WandbHook", "project": project, "print_freq": int(logger.number("print_freq", 100))}
            hooks = root.translation.target.values["train"].get("hooks")
            own = hooks if isinstance(hooks, list) else []
            wandb.set([*own, {**hook, **({"resume_id": run} if run else {})}], "project", "train", "hooks")
        wandb.close()
    logger.set(logger.get("keep_last", _KEEP_ALL), "save_checkpoint_freq", "logger", "keep_last")
    logger.close()
