# The clock: times the arms of an ablation with `latency`, station by station, and reports the results.
CLOCKED = [a.name for a in STUDY.ablations if a.latency]


def clocked_arms(wildcards):
    """The names of the arms that are clocked, and how: a change clocks them all again."""
    ablation = STUDY.ablation(wildcards.ablation)
    return [str(ablation.latency), *(arm.name for arm in ablation.clocked_arms)]


def clocked_data(wildcards):
    """The rendered file of the benchmark that is clocked."""
    task = STUDY.benchmark(STUDY.ablation(wildcards.ablation).clocked).task
    return LAYOUT.data(task) if task in RENDERED else []


def clocked_budgets(wildcards):
    """The budgets of its images, where an arm that is clocked shares its budget out among them."""
    arms = STUDY.ablation(wildcards.ablation).clocked_arms
    return rules.budgets.output[0] if any(arm.dynamic for arm in arms) else []


def clocked_answers(wildcards):
    """The study's own answers to its questions."""
    return parts_of(
        rules.answer.output[0],
        [STUDY.benchmark(STUDY.ablation(wildcards.ablation).clocked)],
    )


def clocked_costs(wildcards):
    """What the arms cost by counting."""
    return LAYOUT.costs(STUDY.ablation(wildcards.ablation).clocked)


rule measure:
    input:
        data=clocked_data,
        weights=weights(),
        budgets=clocked_budgets,
        answers=clocked_answers,
        stores=lambda wildcards: answered(STUDY.ablation(wildcards.ablation).clocked),
        asked=asked("measure", clocked_arms),
        code=code("measure"),
    output:
        LAYOUT.timings(),
    benchmark:
        LAYOUT.time("measure", "ablations", "{ablation}")
    # More than any machine has: no other job may run beside the clock, and the model gets all cores.
    threads: 4096
    resources:
        **resources_of("measure"),
    message:
        "Clocking the arms of {wildcards.ablation}"
    script:
        "../scripts/measure.py"


rule latency:
    input:
        timings=rules.measure.output[0],
        costs=clocked_costs,
        comparison=LAYOUT.comparison(),
        arms=LAYOUT.ablation("arms.csv"),
        asked=asked("latency", ablation_asked),
        paper=paper("results.csv", "notes.yaml"),
        code=code("render"),
    output:
        latency=LAYOUT.ablation("latency.csv"),
        html=reported("latency.html", "time", "latency"),
        markdown=LAYOUT.ablation("latency.md"),
        tex=LAYOUT.ablation("latency.tex"),
        speed=picture("speed", "latency"),
        stations=picture("stations", "latency"),
    localrule: True
    message:
        "Time of {wildcards.ablation}: table and pictures"
    script:
        "../scripts/latency.py"


# All files are targets, so that any missing one is made again.
TARGETS += filled(rules.latency.output, ablation=CLOCKED)
