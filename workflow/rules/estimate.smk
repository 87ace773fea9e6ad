rule estimate:
    localrule: True
    # More than any machine has: what it gets is the number of cores.
    threads: 4096
    message:
        "What the study will take"
    script:
        "../scripts/estimate.py"
