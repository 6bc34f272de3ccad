"""One step of a training: the gradient of a batch, in as many parts as the device's memory needs, and the optimiser.

A gradient is either added whole or not at all, so a batch that did not fit is done again in smaller parts and nothing of
the batches before it is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn

from rehead.bundle_facts import Task
from rehead.features.cuda_graphs import Numbers
from rehead.tuning.course import Course
from rehead.tuning.depthwise import DepthwiseGradients
from rehead.tuning.losses import loss_of
from rehead.tuning.mixing import erased, mixed
from rehead.tuning.recorded import Labels, Recorded
from rehead.tuning.together import Alone, Together

MANY, WARM = 60, 3  # batches of which one is recorded, after so many that choose their kernels
NO_DECAY_NDIM = 1  # norms' weights and all biases have one dimension

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda groups, **settings: torch.optim.SGD(groups, momentum=0.9, nesterov=True, **settings),
}


class Stepper:
    """The optimiser, the loss scale that float16 needs, and in how many parts a batch goes through the device.

    groups: the parameters that learn, layer by layer, the head last. weights: of `losses.weights_of`. task: what is learned.
    note: told in words when batches go in more parts from now on. most: photos of a part, where memory is not what decides.
    n_batches: whole ones, in the whole training. On CUDA the gradient of many is recorded once and replayed: from then on the
    model stays as it is, but for the numbers in its parameters and buffers. together: whose gradients are added up; those of
    several are not recorded. dtype: what the model computes in, of `precision`.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Sequence[nn.Parameter]],
        course: Course,
        weights: torch.Tensor | None,
        device: torch.device,
        note: Callable[[str], None],
        task: Task = "classification",
        most: int | None = None,
        n_batches: int = 0,
        together: Together | None = None,
        *,
        dtype: torch.dtype,
    ) -> None:
        self._model, self._course, self._weights, self._note, self._task = model, course, weights, note, task
        self._forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if course.compile else model
        self.optimizer = optimizer_of(groups, course)
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._together = together or Alone()
        self._dtype = dtype
        self._scaler = torch.amp.GradScaler(enabled=dtype == torch.float16)
        self._n_parts, self._most = 1, most
        can_record = device.type == "cuda" and course.accumulate == 1 and not course.compile and self._together.n == 1
        self._records = can_record and n_batches >= MANY and not self._scaler.is_enabled()
        self._recorded: Recorded | None = None
        self._numbers = Numbers()
        self._n_alike = 0  # whole batches of this shape since there was a record
        self._shape = torch.Size()

    def make_room(self) -> None:
        """Lets go of the record, which holds the memory of a step, where others may need it."""
        if self._recorded is not None and not is_roomy():
            self._recorded, self._n_alike = None, 0

    def backward(self, x: torch.Tensor, y: torch.Tensor, share: float) -> torch.Tensor:
        """The mean loss of a batch, (), on the device: reading it waits for all that was asked of it. The batch's gradient,
        times the share of the step that it is, is added.

        Erasing and mixing are drawn here, once for the whole batch.
        """
        course = self._course
        x, other, kept = mixed(erased(x, course.erase), course.mixup, course.cutmix)
        labels = y, y[other]
        if self._is_recorded(x, labels, kept, share):
            return self._replayed(x, labels, kept)
        before = [p.grad for p in self._parameters]
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                with self._numbers if self._records and self._n_alike == WARM else nullcontext():
                    loss = self._in_parts(x, labels, kept, share)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error) or (self._n_parts >= len(x) and self._recorded is None):
                    raise
            if self._recorded is not None:  # which may hold what is missing
                self._recorded, self._n_alike = None, 0
                free_memory(x.device)
                continue
            self._n_parts *= 2
            free_memory(x.device)
            self._note(f"The device's memory is full: batches of {len(x)} go in {self._n_parts} parts from now on.")
        for parameter, gradient in zip(self._parameters, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return loss

    def add(self) -> None:
        """The gradients become their sums over all processes."""
        self._together.add([p.grad for p in self._parameters if p.grad is not None])

    def step(self, lr: float) -> None:
        """Moves the parameters by the gradient that was added up, and forgets it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        if self._course.clip is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._course.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it remembers from step to step, on the CPU: by the parameter's place and name, and the loss scale."""
        kept = {f"scale.{key}": torch.tensor(float(value)) for key, value in self._scaler.state_dict().items()}
        for i, parameter in enumerate(self._parameters):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                kept[f"{i}.{key}"] = torch.as_tensor(value).detach().cpu()
        return kept

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `tensors`. Of another kind of optimiser nothing is taken: it begins anew."""
        scale = {n.removeprefix("scale."): float(t) for n, t in tensors.items() if n.startswith("scale.")}
        if scale and self._scaler.is_enabled():
            whole = ("growth_interval", "_growth_tracker")
            self._scaler.load_state_dict({key: int(v) if key in whole else v for key, v in scale.items()})
        kept = "momentum_buffer" if isinstance(self.optimizer, torch.optim.SGD) else "exp_avg"
        is_of_this_kind = any(name.endswith(f".{kept}") for name in tensors)
        for name, tensor in tensors.items():
            i, _, key = name.partition(".")
            if i != "scale" and is_of_this_kind:
                parameter = self._parameters[int(i)]
                is_like = (
                    tensor.shape == parameter.shape and tensor.ndim > 0
                )  # and lies in memory as the parameter does
                place = torch.empty_like(parameter, requires_grad=False) if is_like else torch.empty_like(tensor)
                self.optimizer.state[parameter][key] = place.copy_(tensor)

    def _is_recorded(self, x: torch.Tensor, labels: Labels, kept: float, share: float) -> bool:
        """Whether there is a record that gives this batch's gradient; one is made of the first of its kind."""
        if not self._records or self._n_parts > 1:
            self._recorded = None
            return False
        if len(x) != self._course.batch_size:
            self.make_room()
            return False
        if x.shape != self._shape:  # photos are larger in later epochs
            self._recorded, self._n_alike, self._shape = None, 0, x.shape
        if self._recorded is not None:
            return True
        self._n_alike += 1
        if self._n_alike <= WARM:
            return False
        if self._numbers.found is not None:
            return self._gives_up(f"needs a number of the device on the way ({self._numbers.found})")
        self.optimizer.zero_grad(set_to_none=True)
        mixes = torch.tensor(kept, device=x.device) if self._course.mixup or self._course.cutmix else None
        try:
            self._recorded = Recorded(partial(self._in_parts, share=share), self._parameters, x, labels, mixes)
        except RuntimeError as error:
            free_memory(x.device)
            return self._gives_up(f"cannot be: {' '.join(str(error.__context__ or error).split())[:200]}")
        return True

    def _gives_up(self, why: str) -> bool:
        self._records = False
        self._note(f"Batches are not recorded as a CUDA graph, as the network {why}.")
        return False

    def _replayed(self, x: torch.Tensor, labels: Labels, kept: float) -> torch.Tensor:
        assert self._recorded is not None
        loss, gradients = self._recorded(x, labels, kept)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _in_parts(self, x: torch.Tensor, labels: Labels, kept: float | torch.Tensor, share: float) -> torch.Tensor:
        total = torch.zeros((), device=x.device)
        n_parts = max(self._n_parts, math.ceil(len(x) / (self._most or len(x))))
        for part in torch.arange(len(x), device=x.device).tensor_split(min(n_parts, len(x))):
            of_batch = len(part) / len(x)
            with computing_in(self._dtype, x.device):
                loss = self._loss(self._logits(x[part] if n_parts > 1 else x).float(), labels, part, kept)
            self._scaler.scale(loss * share * of_batch).backward()
            total = total + loss.detach() * of_batch
        return total

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self._forward(x)
        except Exception as error:  # a compiler may fail in any way; the model itself is still there
            if self._forward is self._model or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                raise
            self._forward = self._model
            self._note(f"The model cannot be compiled and runs as it is: {type(error).__name__}: {str(error)[:200]}")
            return self._forward(x)

    def _loss(
        self, logits: torch.Tensor, labels: Labels, part: torch.Tensor, kept: float | torch.Tensor
    ) -> torch.Tensor:
        """The mean loss of these rows: by their own labels, and by those of the photos that were mixed in."""
        own = self._loss_by(logits, labels[0][part])
        if not isinstance(kept, torch.Tensor) and kept == 1:
            return own
        return kept * own + (1 - kept) * self._loss_by(logits, labels[1][part])

    def _loss_by(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return loss_of(self._task, logits, labels, self._weights, self._course.label_smoothing)


def optimizer_of(groups: Sequence[Sequence[nn.Parameter]], course: Course) -> torch.optim.Optimizer:
    """Groups by layer: the rate falls with the distance from the head, and one-dimensional parameters do not decay."""
    settings = []
    for depth, parameters in enumerate(reversed(groups)):
        scale = course.layer_decay**depth
        for is_plain in (False, True):
            chosen = [p for p in parameters if (p.ndim <= NO_DECAY_NDIM) == is_plain]
            if chosen:
                decay = 0.0 if is_plain else course.weight_decay
                settings.append({"params": chosen, "weight_decay": decay, "scale": scale, "lr": 0.0})
    return OPTIMIZERS[course.optimizer](settings, lr=course.lr)


def precision(device: torch.device, n_processes: int = 1, *, is_of_layers: bool = False) -> torch.dtype:
    """What a network computes in. On CUDA bfloat16, or float16, which needs a loss scale, where one process learns on a card
    that only emulates bfloat16, such as a T4: of several each sees its own card alone, and gradients that are added up have one
    scale. On a CPU that multiplies in bfloat16 itself (AVX512-BF16, which those with AMX have too) in that, where layers of a
    network learn and not only dense ones behind it. Elsewhere float32."""
    if device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_native or n_processes > 1 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and is_of_layers and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16 itself, by oneDNN: without that PyTorch has plain loops for it."""
    is_native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # no public name says so
    return bool(is_native()) and torch.backends.mkldnn.is_available()


@contextmanager
def computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within it a model computes in one of `precision`; on the CPU in bfloat16 with gradients that are fast there."""
    own = DepthwiseGradients() if device.type == "cpu" and dtype == torch.bfloat16 else nullcontext()
    torch.clear_autocast_cache()  # within an autocast of the caller's own it would hold weights as they were steps ago
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), own:
        yield


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory was full; Apple's says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def is_roomy() -> bool:
    """Whether a quarter of the CUDA device's memory is free."""
    free, total = torch.cuda.mem_get_info()
    return free > total / 4


def free_memory(device: torch.device) -> None:
    """Gives back what the device's allocator holds and nothing uses."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
