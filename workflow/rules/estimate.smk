rule estimate:
    localrule: True
    # More than any machine has, so that the job gets the number of cores.
    threads: 4096
    message:
        "What the study will take"
    script:
        "../scripts/estimate.py"
