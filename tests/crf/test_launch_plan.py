"""The launch plan by itself: what it launches fits the kernels and its memory, and nothing reads what nobody wrote."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import launch_plans
import numpy as np
import pytest
from emulator.build import kernels_of, signatures_of

from atrous import _native
from atrous._native import PlannedLaunch, Slot
from atrous.crf import CRFParams
from atrous.crf.cuda_field import FieldSpec
from atrous.crf.cuda_queue import KERNELS
from atrous.errors import CRFError

P1 = CRFParams.deeplab_v2_resnet()
BASE = FieldSpec(1, 21, 37, 53, "fp32", 10, "symmetric", P1)
SPECS = {
    "one pixel": replace(BASE, classes=1, height=1, width=1),
    "single precision": BASE,
    "fractions": replace(BASE, storage="unorm16"),
    "a batch": replace(BASE, images=3, classes=5),
    "a batch of fractions": replace(BASE, images=3, classes=5, storage="unorm16"),
    "many classes": replace(BASE, classes=200),
    "many classes as fractions": replace(BASE, classes=256, storage="unorm16"),
    "no update": replace(BASE, iterations=0),
    "one update": replace(BASE, iterations=1),
    "before": replace(BASE, normalization="before"),
    "after": replace(BASE, normalization="after"),
    "no norms": replace(BASE, normalization="none"),
    "no norms of fractions": replace(BASE, normalization="none", storage="unorm16"),
    "no Gaussian": replace(BASE, params=replace(P1, gaussian_weight=0)),
    "no bilateral": replace(BASE, params=replace(P1, bilateral_weight=0), storage="unorm16"),
    "neither": replace(BASE, params=replace(P1, bilateral_weight=0, gaussian_weight=0)),
    "large": replace(BASE, height=1024, width=2048),
    "grown": replace(BASE, vertices_per_pixel=6),
}


class Plan:
    """Both plans of a field."""

    def __init__(self, spec: FieldSpec, *, is_matrix: bool = False, multiprocessors: int = 108) -> None:
        potts = -np.eye(spec.classes, dtype=np.float32) if is_matrix else np.full(spec.classes, -1, np.float32)
        has_gaussian = spec.native.gaussian is not None
        vertices = spec.images * spec.height * spec.width if has_gaussian else 0
        self.build = _native.plan_field(spec.native, (potts, potts), multiprocessors)
        self.run = _native.plan_field(spec.native, (potts, potts), multiprocessors, vertices)
        self.sizes = {planned.name: planned for plan in (self.build, self.run) for planned in plan.buffers}

    @property
    def sequences(self) -> dict[str, list[_native.Step]]:
        return {**self.build.sequences, **self.run.sequences}


@pytest.fixture(params=SPECS, ids=lambda name: name.replace(" ", "-"))
def spec(request: pytest.FixtureRequest) -> FieldSpec:
    return SPECS[request.param]


@pytest.fixture(params=[False, True], ids=["vector", "matrix"])
def plan(request: pytest.FixtureRequest, spec: FieldSpec) -> Plan:
    return Plan(spec, is_matrix=request.param)


@cache
def signatures() -> dict[str, list[str]]:
    return signatures_of(KERNELS)


def slots_of(step: _native.Step) -> list[tuple[Slot, bool]]:
    return launch_plans.slots_of(step, signatures())


def steps_of(plan: Plan) -> list[_native.Step]:
    return [step for sequence in plan.sequences.values() for step in sequence]


def test_arguments_are_of_the_kernels_types(plan):
    launch_plans.assert_arguments_fit(steps_of(plan), signatures())


def test_blocks_are_of_a_size_that_gpus_have(plan):
    launch_plans.assert_blocks_fit(steps_of(plan))


def test_slots_lie_inside_their_buffers(plan):
    for step in steps_of(plan):
        for slot, _ in slots_of(step):
            assert slot.nbytes > 0
            assert slot.offset % 4 == 0
            assert 0 <= slot.offset <= slot.offset + slot.nbytes <= plan.sizes[slot.buffer].nbytes


def test_what_is_written_is_not_read_under_another_name(plan):
    """Only the last update works in place: a pixel reads its own before it writes."""
    for step in steps_of(plan):
        slots = slots_of(step)
        for i, (slot, is_const) in enumerate(slots):
            for other, is_other_const in slots[:i]:
                apart = slot.offset + slot.nbytes <= other.offset or other.offset + other.nbytes <= slot.offset
                if slot.buffer != other.buffer or apart or (is_const and is_other_const):
                    continue
                assert step.work.kernel.startswith("crf_last_step_")
                assert slot.buffer == "logits"


class Memory:
    """What of a plan's memory has been written."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._written: dict[str, list[tuple[int, int]]] = {"planes": [(0, plan.sizes["planes"].nbytes)]}
        self._tables = {content.buffer: content.values for content in plan.run.contents}
        for name in self._tables:
            self._written[name] = [(0, plan.sizes[name].nbytes)]

    def forget(self, prefix: str) -> None:
        for name in [name for name in self._written if name.startswith(prefix)]:
            if self._plan.sizes[name].use == "scratch":
                del self._written[name]

    def write(self, slot: Slot) -> None:
        self._written.setdefault(slot.buffer, []).append((slot.offset, slot.offset + slot.nbytes))

    def holds(self, slot: Slot) -> bool:
        is_given = self._plan.sizes[slot.buffer].use == "given"
        return is_given or launch_plans.covered(self._written.get(slot.buffer, []), slot)

    def terms(self, count: int) -> list[Slot]:
        """What the first terms of the table point to."""
        return [word for word in self._tables.get("terms", [])[: 6 * count] if isinstance(word, Slot)]


#: Parameters that a kernel does not read where nothing is normalised.
UNREAD = {("crf_apply_norms", "scratch.norms")}


def test_everything_that_is_read_was_written(spec, plan):
    """By the same part where memory is scratch: between parts, and lattices, it may hold anything."""
    memory = Memory(plan)
    for name in ("build", "frame", "labels", "marginals", "report"):
        memory.forget("")
        belongs = None
        for step in plan.sequences[name]:
            if (step.part, step.lattice) != belongs:
                memory.forget("scratch.")
                belongs = (step.part, step.lattice)
            kernel = getattr(step.work, "kernel", "copy or fill")
            reads = [slot for slot, is_const in slots_of(step) if is_const]
            if "step_" in kernel:
                terms = step.work.args[1]
                reads = [slot for slot in reads if terms or slot.buffer != "terms"] + memory.terms(terms)
            for slot in reads:
                is_unread = spec.normalization == "none" and (kernel, slot.buffer) in UNREAD
                assert is_unread or memory.holds(slot), f"{kernel} reads {slot.buffer}"
            for slot, is_const in slots_of(step):
                if not is_const:
                    memory.write(slot)


def test_memory_of_the_first_plan_goes_over_to_the_second(plan):
    first = {planned.name: planned.nbytes for planned in plan.build.buffers}
    second = {planned.name: planned.nbytes for planned in plan.run.buffers}
    assert {name: second[name] for name in first if name in second} == {
        name: nbytes for name, nbytes in first.items() if name in second
    }
    assert "report" in first
    assert "report" in second


def test_every_kernel_is_in_a_plan_and_every_launch_is_of_a_kernel():
    plans = [Plan(spec) for spec in SPECS.values()]
    steps = [step for plan in plans for sequence in plan.sequences.values() for step in sequence]
    launched = {step.work.kernel for step in steps if isinstance(step.work, PlannedLaunch)}
    assert sorted(launched) == kernels_of(KERNELS)


def test_the_number_of_multiprocessors_changes_grids_alone():
    few, many = Plan(BASE, multiprocessors=1), Plan(BASE, multiprocessors=200)
    assert {name: planned.nbytes for name, planned in few.sizes.items()} == {
        name: planned.nbytes for name, planned in many.sizes.items()
    }
    for name, sequence in few.sequences.items():
        pairs = list(zip(sequence, many.sequences[name], strict=True))
        launches = [(a.work, b.work) for a, b in pairs if isinstance(a.work, PlannedLaunch)]
        assert all((a.kernel, a.block, len(a.args)) == (b.kernel, b.block, len(b.args)) for a, b in launches)
        assert all(a.grid <= b.grid for a, b in launches)


def test_a_field_grows_until_every_point_may_have_vertices_of_its_own():
    spec, rooms = BASE, []
    while spec is not None:
        rooms.append(spec.native.bilateral.capacity)
        spec = spec.grown()
    assert rooms == [3 * 37 * 53, 6 * 37 * 53, 6 * (37 * 53 + 1)]


def test_the_estimate_is_the_memory_of_the_plan(spec):
    planned = sum(each.nbytes for each in Plan(spec).run.buffers if each.use != "given")
    assert planned <= spec.estimate_bytes() <= 1.1 * planned + 2**16


@pytest.mark.parametrize(
    ("changes", "limit"), [({"height": 20000, "width": 20000}, "179"), ({"classes": 256, "images": 64}, "17")]
)
def test_more_than_32_bit_indices_reach_is_refused(changes, limit):
    spec = replace(BASE, height=513, width=513)
    with pytest.raises(CRFError, match=rf"needs about [\d.]+ GiB, and its indices .* limit is {limit} million pixels"):
        Plan(replace(spec, **changes))
