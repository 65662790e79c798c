"""Meta-DMoE on rotated digits and on CIFAR-10 in ten corruption domains as a real folder tree, five seeds each.

    python -m benchmarks.meta_dmoe.run choose   # step sizes, on training domains left out
    python -m benchmarks.meta_dmoe.run measure  # the tables and the pictures

Every stage is an ordinary ``tta fit`` call, kept beside the results, and every row a pass of ``tta.online`` over the
stream, from the source at each domain; what a run folder holds is not run again. Four rows always: the ERM student as
it is, after one step towards the pre-trained aggregator without meta-training, and the meta-trained student before
the step and after it.
"""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

import tta
from benchmarks.meta_dmoe.folder import write_tree
from benchmarks.meta_dmoe.problems import CHOICES, NETWORKS, PROBLEMS, RECIPES, STEPS, TRAININGS, TREE, Problem, Recipe
from benchmarks.meta_dmoe.report import report
from datamodules import StreamDataModule
from models import DomainExperts
from tta.cli import main as tta_main
from tta.modules import load_weights

HERE = Path(__file__).parent
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
FIT = (*QUIET, "--trainer.enable_model_summary", "false", "--trainer.limit_val_batches", "0")


KINDS = ("control", "after")


class Cell:
    """One seed of one problem: its stages, each run once.

    Args:
        problem: The problem.
        seed: Of the split of images, of networks and of batches.
        runs: Where run folders go.
        commands: Takes up every command.
    """

    def __init__(self, problem: Problem, seed: int, runs: Path, commands: list[str]) -> None:
        self.problem = problem
        self.runs = runs
        self.commands = commands
        self.seed = seed
        self.seeds = ("--seed_everything", str(seed), "--data.seed", str(seed), "--data.split_seed", str(seed))

    def call(self, words: tuple[str, ...], folder: Path, product: str) -> Path:
        self.commands.append(f"tta {shlex.join(words)} --trainer.default_root_dir {folder}")
        if not (folder / product).exists():
            print(self.commands[-1], flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut
            if status := tta_main([*words, "--trainer.default_root_dir", str(folder)]):
                raise SystemExit(status)
        return folder / product

    def fit(self, name: str, domains: list[str], *words: str) -> Path:
        data = (*self.problem.source, self.problem.option, f"[{', '.join(domains)}]")
        return self.call(("fit", *data, *words, *self.seeds, *FIT), self.runs / name, "weights.safetensors")

    def classifier(self, name: str, domains: list[str], lr: str, epochs: int, weights: Path | None = None) -> Path:
        cosine = ("--model.lr_scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR")
        cosine += ("--model.lr_scheduler.T_max", str(epochs))
        schedule = cosine if self.problem.annealed else ()
        start = () if weights is None else ("--model.weights", str(weights))
        rate = ("--model.optimizer.lr", lr)
        length = ("--trainer.max_epochs", str(epochs))
        _, backbone, arguments = NETWORKS[self.problem.network]
        network = ("--model.backbone", *backbone, *_flags("--model.backbone", arguments))
        return self.fit(name, domains, *network, *rate, *schedule, *length, *start)

    @property
    def experts(self) -> tuple[str, ...]:
        _, student, arguments = NETWORKS[self.problem.network]
        part = ("--model.backbone", "models.DomainExperts", "--model.backbone.student", *student)
        count = ("--model.backbone.experts", str(len(self.problem.groups)))
        return (*part, *_flags("--model.backbone.student", arguments), *count)

    def groups(self) -> str:
        return json.dumps([list(group) for group in self.problem.groups])

    def aggregator(self, recipe: Recipe) -> Path:
        """The ERM student, the experts and the pre-trained aggregator, in one file."""
        student = self.classifier("student", self.problem.domains, "0.003", self.problem.epochs)
        kind = "aligned" if recipe.aligned else "independent"
        rest = ("0.001", 4, student) if recipe.aligned else ("0.003", self.problem.epochs)
        files = [
            self.classifier(f"expert-{kind}-{number}", list(group), *rest)
            for number, group in enumerate(self.problem.groups)
        ]
        given = ("--model.backbone.student_weights", str(student))
        given += ("--model.backbone.expert_weights", f"[{', '.join(map(str, files))}]")
        hidden = ("--data.batches", "one_domain", "--model.groups", self.groups()) if recipe.hide else ()
        part = ("--config", "configs/training/aggregator.yaml", "--trainer.max_epochs", "4")
        name = f"aggregator-{kind}{'-hidden' if recipe.hide else ''}"
        return self.fit(name, self.problem.domains, *part, *self.experts, *given, *hidden)

    def meta(self, name: str, recipe: Recipe, inner_lr: str, *more: str) -> Path:
        part = ("--config", "configs/training/meta_distillation.yaml")
        groups = ("--model.groups", self.groups())
        rate = ("--model.inner_lr", inner_lr, "--model.warm_start", str(recipe.warm_start))
        schedule = ("--model.lr_scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR")
        length = ("--model.lr_scheduler.T_max", "2", "--trainer.max_epochs", "2")
        weights = ("--model.weights", str(self.aggregator(recipe)))
        words = (*part, *self.experts, *groups, *rate, *schedule, *length, *weights, *more)
        return self.fit(name, self.problem.domains, *words)

    def accuracy(self, weights: Path, step: str | None = None) -> dict[str, float]:
        """Accuracy on every unseen domain, after one step of the given size or without."""
        file = weights.parent / f"accuracy-{step}.json"
        if not file.exists():
            model = DomainExperts(NETWORKS[self.problem.network][0](), experts=len(self.problem.groups))
            load_weights(model, weights)
            adapter = (
                {"adapter": "source"} if step is None else {"adapter": "metadmoe", "lr": float(step), "momentum": 0}
            )
            file.write_text(json.dumps(per_domain(tta.online(model, **adapter), self.problem.stream(self.seed))))
        return json.loads(file.read_text())


def _flags(before: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{before}.{arguments[0]}", arguments[1]) if arguments else ()


def per_domain(online: tta.OnlineModel, stream: StreamDataModule) -> dict[str, float]:
    """Go through a stream domain after domain, from the source at each."""
    stream.setup("fit")
    right: dict[str, list[bool]] = {}
    for batch in stream.train_dataloader():
        domain = stream.domains[int(batch["domain"][0])]
        if domain not in right:
            online.reset()
        said = online(batch["image"]).argmax(dim=1)
        right.setdefault(domain, []).extend((said == batch["label"]).tolist())
    return {domain: sum(rows) / len(rows) for domain, rows in right.items()}


def rows(cell: Cell, recipe_name: str, chosen: dict[str, str]) -> dict[str, dict[str, float]]:
    recipe, own, control = RECIPES[recipe_name], chosen["step"], chosen["control_step"]
    name = recipe_name.replace(", ", "-").replace(" ", "-")
    before = cell.aggregator(recipe)
    trained = cell.meta(f"meta-{name}", recipe, chosen["inner_lr"], "--model.optimizer.lr", chosen["student_lr"])
    return {
        "ERM": cell.accuracy(before),
        "ERM, one step": cell.accuracy(before, control),
        "meta-trained, before": cell.accuracy(trained),
        "meta-trained, after": cell.accuracy(trained, own),
        "ERM, one step of the same size": cell.accuracy(before, own),
    }


def measure(options: argparse.Namespace) -> None:
    for name in options.problems:
        chosen = json.loads((HERE / f"{name}_choice.json").read_text())["chosen"]
        file = HERE / f"{name}.json"
        measured = json.loads(file.read_text()) if file.exists() else {}
        if measured.get("chosen") != chosen:
            measured = {"chosen": chosen, "results": {}, "commands": []}
        for recipe in options.recipes:
            commands: list[str] = []
            measured["results"][recipe] = []
            for seed in range(options.seeds):
                cell = Cell(PROBLEMS[name], seed, options.runs / name / str(seed), commands)
                measured["results"][recipe].append(rows(cell, recipe, chosen))
            measured["commands"] = list(dict.fromkeys([*measured["commands"], *commands]))
            file.write_text(json.dumps(measured, indent=1) + "\n")
    report(HERE)


def choose(options: argparse.Namespace) -> None:
    """Mean accuracy on training domains left out, by step size and learning rate; the best of each is chosen."""
    for name in options.problems:
        table: dict[str, list[float]] = {}
        for seed in range(100, 100 + options.choice_seeds):
            for number, problem in enumerate(CHOICES[name]):
                cell = Cell(problem, seed, options.runs / f"choose-{name}" / f"{seed}-{number}", [])
                for key, row in candidates(cell, STEPS[name], TRAININGS[name]).items():
                    table.setdefault(key, []).append(sum(row.values()) / len(row))
                    print(name, seed, number, key, round(table[key][-1], 4), flush=True)
        best = {kind: max((k for k in table if k.startswith(kind)), key=lambda k: sum(table[k])) for kind in KINDS}
        _, inner, student, step = best["after"].split()
        control = best["control"].split()[1]
        chosen = {"inner_lr": inner, "student_lr": student, "step": step, "control_step": control}
        text = json.dumps({"chosen": chosen, "accuracy": table}, indent=1)
        (HERE / f"{name}_choice.json").write_text(text + "\n")


def candidates(
    cell: Cell, steps: tuple[str, ...], trainings: tuple[tuple[str, str], ...]
) -> dict[str, dict[str, float]]:
    recipe = RECIPES["aligned"]
    weights = cell.aggregator(recipe)
    figures = {"ERM": cell.accuracy(weights)}
    for lr in steps:
        figures[f"control {lr}"] = cell.accuracy(weights, lr)
    for inner, student in trainings:
        trained = cell.meta(f"meta-{inner}-{student}", recipe, inner, "--model.optimizer.lr", student)
        figures[f"before {inner} {student}"] = cell.accuracy(trained)
        for lr in steps:
            figures[f"after {inner} {student} {lr}"] = cell.accuracy(trained, lr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "measure"))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--choice_seeds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="CIFAR-10 in folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/meta_dmoe"), help="where run folders go")
    options = parser.parse_args()
    write_tree(options.data, TREE)
    {"choose": choose, "measure": measure}[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
