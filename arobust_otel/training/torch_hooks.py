"""Hooks into PyTorch, set when the user's code imports it: steps, phases, states, process groups.

No global module hooks: they cost, break compiled graphs, and make in-place operations raise. A part of torch
that is not where we know it is a gap in the beacon, never an error.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from arobust_otel import guard
from arobust_otel.model.beacon_gaps import GAPS
from arobust_otel.model.beacon_layout import PHASE, STATE
from arobust_otel.training import rank as at
from arobust_otel.training.groups import GroupBook
from arobust_otel.training.loss import LossWatch
from arobust_otel.training.place import say
from arobust_otel.training.rank import RankWriter

COLLECTIVES = (
    "all_reduce",
    "all_reduce_coalesced",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "monitored_barrier",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
)
POINT_TO_POINT = ("send", "recv", "isend", "irecv", "batch_isend_irecv")
# The first optimizer may be set aside after a warm-up: another that steps so often alone takes its place.
_STEPS_TO_REPLACE = 64


class TorchHooks:
    """What the hooks do; `install` ties them to a module of torch by its name."""

    def __init__(self, writer: RankWriter, book: GroupBook, count: Callable[[], None]) -> None:
        self.writer = writer
        self.count = count
        self.book = book
        self.loss = LossWatch(writer)
        self._first: weakref.ref[Any] | None = None
        self._first_id = 0
        self._others = 0

    def install(self, module: Any) -> None:
        """Hook a module that was just imported; what is missing in it becomes a gap."""
        gap, install = MODULES[module.__name__]
        _, error = guard.attempt(f"hook {module.__name__}", lambda: install(self, module))
        if error is not None:
            self.writer.miss(gap)
            say(f"{GAPS[gap][0]} ({type(error).__name__}: {error}); {GAPS[gap][1]}")

    # --- optimizer
    def hook_optimizer(self, module: Any) -> None:
        """Steps are counted by torch's own hooks: they hold where super().__init__ is called."""
        module.register_optimizer_step_pre_hook(guard.contained("optimizer hook")(self.before_optimizer))
        module.register_optimizer_step_post_hook(guard.contained("optimizer hook")(self.after_optimizer))

    def before_optimizer(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """An optimizer begins its step."""
        self.writer.enter_phase(at.OPTIMIZER)

    def after_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """An optimizer has stepped: the recurrence of the first one is a step of the training."""
        if id(optimizer) == self._first_id:
            self._others = 0
            self.writer.finish_step()
            return
        self._others += 1
        if not self._first_id or self._others >= _STEPS_TO_REPLACE:
            self._first = weakref.ref(optimizer, self._forget_first)
            self._first_id, self._others = id(optimizer), 0
            self.writer.can("optimizer_steps")
            self.writer.miss("step_signal", missing=False)
            self.writer.finish_step()
        else:
            self.writer.enter_phase(at.NONE)

    def _forget_first(self, gone: weakref.ref[Any]) -> None:
        """The first optimizer is gone: its id may come again for another object."""
        if gone is self._first:
            self._first, self._first_id = None, 0

    # --- loader
    def hook_loader(self, module: Any) -> None:
        """Both iterators of DataLoader share one ``__next__``."""
        kind = module._BaseDataLoaderIter
        kind.__next__ = guard.around("loader hook", kind.__next__, self.before_next, self.after_next)
        self.writer.can("loader_steps")

    def before_next(self, _args: tuple[object, ...]) -> object:
        """A batch is asked for."""
        writer = self.writer
        if get_ident() != writer.owner:
            return None
        if writer.page.slots[STATE] < at.FIRST_STEP:
            writer.enter_state(at.FIRST_STEP)
        writer.enter_phase(at.DATA)
        return True

    def after_next(self, _token: object, failed: bool) -> None:
        """A batch is there: forward begins."""
        self.writer.enter_phase(at.NONE if failed else at.FORWARD)

    # --- backward
    def hook_backward(self, module: Any) -> None:
        """`Tensor.backward` comes through here too."""
        module.backward = guard.around(
            "backward hook", module.backward, self.before_backward, self.after_backward
        )
        self.writer.can("backward")

    def before_backward(self, args: tuple[object, ...]) -> object:
        """Backward starts; args[0] is its root."""
        writer = self.writer
        slots = writer.page.slots
        if get_ident() != writer.owner or slots[PHASE] == at.BACKWARD:
            return None
        if slots[STATE] != at.RUNNING:
            writer.begin_training()
        writer.enter_phase(at.BACKWARD)
        if args:
            self.loss.see(args[0])
        return True

    def after_backward(self, _token: object, _failed: bool) -> None:
        """Backward is over."""
        self.writer.enter_phase(at.NONE)

    # --- checkpoints and evaluation
    def hook_checkpoint(self, module: Any) -> None:
        """Save and load, plain or distributed."""
        for name in ("save", "load", "async_save"):
            function = getattr(module, name, None)
            if function is not None:
                look = partial(guard.around, "checkpoint hook", function)
                setattr(module, name, look(self.before_checkpoint, self.after_checkpoint))
                self.writer.can("checkpoint")

    def before_checkpoint(self, _args: tuple[object, ...]) -> object:
        """Remember where we were, and be in a checkpoint."""
        writer = self.writer
        if not writer.is_training_thread() or writer.state == at.CHECKPOINT_STATE:
            return None
        before = (writer.state, writer.phase)
        writer.enter_state(at.CHECKPOINT_STATE)
        writer.enter_phase(at.CHECKPOINT)
        return before

    def after_checkpoint(self, token: Any, _failed: bool) -> None:
        """Back to where we were."""
        state, phase = token
        self.writer.enter_phase(phase)
        self.writer.enter_state(state)

    def hook_evaluation(self, module: Any) -> None:
        """`eval()` of a model that has trained begins an evaluation; the next backward ends it."""
        module.Module.eval = guard.around(
            "evaluation hook", module.Module.eval, lambda _args: True, self.after_eval
        )

    def after_eval(self, _token: object, _failed: bool) -> None:
        """A module went into evaluation mode."""
        if self.writer.state == at.RUNNING and self.writer.is_training_thread():
            self.writer.enter_state(at.EVALUATION)

    # --- process groups
    def hook_distributed(self, module: Any) -> None:
        """Life of the groups, names of new ones, and who calls a collective."""
        self._wrap(module, ("init_process_group",), self.before_init, self.after_init)
        self._wrap(module, ("destroy_process_group",), self.before_destroy, _ignore)
        self._wrap(module, COLLECTIVES, self.before_collective, self.after_collective)
        self._wrap(module, POINT_TO_POINT, self.before_point_to_point, self.after_collective)
        self._watch_creation(module)
        self.writer.can("process_groups")

    def _wrap(
        self,
        module: Any,
        names: tuple[str, ...],
        before: Callable[[tuple[object, ...]], object],
        after: Callable[[object, bool], None],
    ) -> None:
        for name in names:
            function = getattr(module, name, None)
            if function is not None:
                setattr(module, name, guard.around("torch.distributed hook", function, before, after))

    def _watch_creation(self, module: Any) -> None:
        register = getattr(module, "_register_pg_in_world", None)
        name = "_register_pg_in_world" if register is not None else "_new_process_group_helper"
        known: list[int] = []

        def look(_args: tuple[object, ...]) -> object:
            known[:] = [id(group) for group in module._world.pg_map]
            return True

        def note(_token: object, failed: bool) -> None:
            world = module._world
            for group in list(world.pg_map) if not failed else ():
                if id(group) not in known:
                    self.book.created(world.pg_names[group], str(world.pg_backend_config[group]))

        setattr(module, name, guard.around("process group hook", getattr(module, name), look, note))

    def before_init(self, _args: tuple[object, ...]) -> object:
        """The rank begins to join the world."""
        self.writer.enter_state(at.INIT_GROUP)
        return True

    def after_init(self, _token: object, failed: bool) -> None:
        """The rank has joined: its first step may come."""
        if not failed:
            self.writer.enter_state(at.FIRST_STEP)

    def before_destroy(self, args: tuple[object, ...]) -> object:
        """Leaving the world; leaving one group is none."""
        if not args or args[0] is None:
            self.writer.enter_state(at.TEARDOWN)
            self.count()  # the groups are gone at the watcher's next tick
        return None

    def before_collective(self, _args: tuple[object, ...]) -> object:
        """User code, or torch in Python, calls a collective."""
        writer = self.writer
        if get_ident() != writer.owner:
            return None
        phase = writer.page.slots[PHASE]
        if phase == at.COLLECTIVE:
            return None
        writer.enter_phase(at.COLLECTIVE)
        return (phase,)

    def before_point_to_point(self, args: tuple[object, ...]) -> object:
        """As a collective, but without counters: a gap."""
        self.writer.miss("p2p")
        return self.before_collective(args)

    def after_collective(self, token: Any, _failed: bool) -> None:
        """Back to the phase before."""
        self.writer.enter_phase(token[0])


def _ignore(_token: object, _failed: bool) -> None:
    return


# Module of torch -> (gap where it is not as we know it, what hooks it).
MODULES: dict[str, tuple[str, Callable[[TorchHooks, Any], None]]] = {
    "torch.serialization": ("checkpoint_signal", TorchHooks.hook_checkpoint),
    "torch.autograd": ("backward_signal", TorchHooks.hook_backward),
    "torch.nn.modules.module": ("hooks", TorchHooks.hook_evaluation),
    "torch.optim.optimizer": ("step_signal", TorchHooks.hook_optimizer),
    "torch.utils.data.dataloader": ("loader_signal", TorchHooks.hook_loader),
    "torch.distributed.distributed_c10d": ("group_signal", TorchHooks.hook_distributed),
    "torch.distributed.checkpoint.state_dict_saver": ("checkpoint_signal", TorchHooks.hook_checkpoint),
    "torch.distributed.checkpoint.state_dict_loader": ("checkpoint_signal", TorchHooks.hook_checkpoint),
}
