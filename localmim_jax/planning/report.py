"""A plan in numbers, for JSON, and in lines of text."""

import os
from collections.abc import Mapping
from typing import Any

import jax

from localmim_jax.planning import floor, hlo, program
from localmim_jax.planning.compile import Compiled
from localmim_jax.planning.hardware import Hardware
from localmim_jax.text import columns

NOT_COUNTED = "not counted: this jaxlib cannot read the compiler's program"
_GIB = 2**30
_DEFAULT_FRACTION = 0.75  # of a GPU's memory that JAX takes


def usable_memory(hardware: Hardware, environment: Mapping[str, str] = os.environ) -> int:
    """Bytes that a step may take on each device: on a GPU the fraction that JAX takes at its start."""
    if hardware.device.platform == "tpu":
        return hardware.device.memory
    named = environment.get("XLA_CLIENT_MEM_FRACTION") or environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
    return int(hardware.device.memory * (float(named) if named else _DEFAULT_FRACTION))


def numbers(compiled: Compiled, hardware: Hardware, price_per_hour: float | None = None) -> dict[str, Any]:
    """Everything that a plan says of one program. Bytes and FLOPs are of one device and one step.

    Args:
        price_per_hour: of one device.
    """
    task, settings, device = compiled.built.task, compiled.built.settings, hardware.device
    memory, usable = compiled.memory, usable_memory(hardware)
    fits = memory is not None and memory.total <= usable
    result: dict[str, Any] = {
        "hardware": {
            "name": hardware.name,
            "kind": device.kind,
            "devices": hardware.count,
            "memory_bytes": device.memory,
            "usable_bytes": usable,
            "bandwidth": device.bandwidth,
            "peak_flops": dict(device.peak),
            "link": device.link,
            "network": device.network,
            "measured_rates": dict(device.measured),
        },
        "jax": jax.__version__,
        "task": task.name,
        "dtype": settings.dtype,
        "batch_size": task.batch_size,
        "accum_steps": settings.accum_steps,
        "image_size": list(compiled.example),
        "num_steps": task.num_steps,
        "notes": list(compiled.built.notes),
        "compile_seconds": compiled.seconds,
        "fits": fits,
    }
    if memory is None:
        return result | {"memory": None, "needed_bytes": compiled.needed}
    result["memory"] = vars(memory)
    result["counted"] = compiled.text is not None
    if compiled.text is None:
        return result
    work = program.work_of(hlo.parse(compiled.text))
    parts = floor.parts(work.kernels, device, settings.dtype)
    kernels, links = floor.floor_seconds(work, hardware, settings.dtype)
    step = max(kernels, links)
    result |= {
        "kernels": sum(kernel.times for kernel in work.kernels),
        "parts": [vars(part) for part in parts],
        "bytes": sum(part.bytes for part in parts),
        "padding": sum(part.padding for part in parts),
        "flops": sum(part.flops for part in parts),
        "unknown_loops": work.unknown_loops,
        "collectives": _collectives(work, hardware),
        "seconds": {"kernels": kernels, "links": links, "step": step},
    }
    result["at_the_floor"] = _run(step, task.batch_size, task.num_steps, hardware.count, price_per_hour)
    result[f"at_{floor.REACHED}_of_it"] = _run(
        step / floor.REACHED, task.batch_size, task.num_steps, hardware.count, price_per_hour
    )
    return result


def needed(plan: Mapping[str, Any]) -> int | None:
    """Bytes of a device that the program of a plan needs; None where the compiler refused it without a number."""
    return plan["memory"]["total"] if plan["memory"] else plan["needed_bytes"]


def _collectives(work: program.Work, hardware: Hardware) -> list[dict[str, Any]]:
    """Those of one kind, part and group together."""
    found: dict[tuple[str, str, int], list[program.Collective]] = {}
    for collective in work.collectives:
        found.setdefault((collective.kind, collective.part, collective.group), []).append(collective)
    return [
        {
            "kind": kind,
            "part": part,
            "group": group,
            "count": sum(c.times for c in same),
            "arrays": sum(c.times * c.arrays for c in same),
            "payload_bytes": sum(c.times * c.payload for c in same),
            "traffic_bytes": sum(c.times * c.traffic for c in same),
            "seconds": sum(floor.link_seconds(c, hardware) for c in same),
        }
        for (kind, part, group), same in sorted(found.items())
    ]


def _run(step: float, batch: int, steps: int, devices: int, price: float | None) -> dict[str, Any]:
    hours = step * steps / 3600
    result = {"images_per_second": batch / step, "hours": hours, "device_hours": hours * devices}
    return result if price is None else result | {"cost": hours * devices * price}


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan of one program, as text."""
    hardware = plan["hardware"]
    h, w = plan["image_size"]
    head = [
        ("hardware", f"{hardware['devices']} x {hardware['kind']}, jax {plan['jax']}"),
        *(("note", note) for note in plan["notes"]),
        ("step", f"{plan['batch_size']} images of {h} x {w} px, accum_steps {plan['accum_steps']}, {plan['dtype']}"),
        ("compiled", f"in {plan['compile_seconds']:.0f} s"),
        ("memory", _memory(plan)),
    ]
    if plan["memory"] is None:
        return columns(head).splitlines()
    if not plan.get("counted", True):
        return columns([*head, ("work", NOT_COUNTED)]).splitlines()
    seconds = plan["seconds"]
    rates = f"{hardware['bandwidth'] / 1e12:.3g} TB/s, {_peak(plan) / 1e12:.4g} TFLOP/s"
    measured = "".join(f"; measured: {name}, {where}" for name, where in hardware["measured_rates"].items())
    head += [
        ("work", f"{plan['kernels']} kernels, {plan['bytes'] / 1e9:.4g} GB, {plan['flops'] / 1e12:.4g} TFLOP a device"),
        ("rates", f"{rates} (data sheet{measured})"),
        ("floor", f"{1e3 * seconds['step']:.4g} ms: kernels {1e3 * seconds['kernels']:.4g}, links "
                  f"{1e3 * seconds['links']:.4g}, which may overlap"),
    ]  # fmt: skip
    if plan["padding"]:
        head.append(("padding", f"{plan['padding'] / plan['bytes']:.1%} of the bytes only fill tiles"))
    if plan["unknown_loops"]:
        head.append(("loops", f"{plan['unknown_loops']} of unknown length, each counted as one turn"))
    head.append(("at floor", _speed(plan["at_the_floor"])))
    reached = _speed(plan[f"at_{floor.REACHED}_of_it"])
    head.append((f"at {floor.REACHED}", f"{reached} (the share that was reached by {floor.REACHED_ON})"))
    return [*columns(head).splitlines(), "", *_parts(plan), "", *_traffic(plan)]


def _peak(plan: Mapping[str, Any]) -> float:
    peaks = plan["hardware"]["peak_flops"]
    return peaks.get(plan["dtype"]) or peaks["float32"]


def _memory(plan: Mapping[str, Any]) -> str:
    hardware, memory = plan["hardware"], plan["memory"]
    has = f"{hardware['usable_bytes'] / _GIB:.4g} of {hardware['memory_bytes'] / _GIB:.4g} GiB usable"
    if memory is None:
        needed = plan["needed_bytes"]
        return f"DOES NOT FIT: {'too much' if needed is None else f'{needed / _GIB:.4g} GiB'} needed, {has}"
    shown = " + ".join(
        f"{name} {memory[name] / _GIB:.3g}" for name in ("parameters", "optimizer", "other", "batch", "temporaries")
    )
    return f"{'fits' if plan['fits'] else 'DOES NOT FIT'}: {memory['total'] / _GIB:.4g} GiB a device, {has}: {shown}"


def _speed(run: Mapping[str, Any]) -> str:
    cost = f", cost {run['cost']:.4g}" if "cost" in run else ""
    hours = f"{run['hours']:.4g} hours, {run['device_hours']:.4g} device hours"
    return f"{run['images_per_second']:.4g} images/s, the whole run {hours}{cost}"


def _parts(plan: Mapping[str, Any]) -> list[str]:
    rows = [("part", "kernels", "GB", "padding", "GFLOP", "floor ms")]
    for part in plan["parts"]:
        padding = f"{part['padding'] / part['bytes']:.0%}" if part["bytes"] else "-"
        gigabytes, gflop = f"{part['bytes'] / 1e9:.4g}", f"{part['flops'] / 1e9:.4g}"
        rows.append((part["name"], str(part["kernels"]), gigabytes, padding, gflop, f"{1e3 * part['seconds']:.4g}"))
    return columns(rows).splitlines()


def _traffic(plan: Mapping[str, Any]) -> list[str]:
    if not plan["collectives"]:
        return ["no traffic between devices"]
    rows = [("collective", "part", "of devices", "count", "arrays", "MB", "MB sent", "ms")]
    for entry in plan["collectives"]:
        megabytes = (f"{entry[key] / 1e6:.4g}" for key in ("payload_bytes", "traffic_bytes"))
        counts = (str(entry[key]) for key in ("group", "count", "arrays"))
        rows.append((entry["kind"], entry["part"], *counts, *megabytes, f"{1e3 * entry['seconds']:.4g}"))
    return columns(rows).splitlines()
