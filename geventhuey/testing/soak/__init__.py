"""The soak: ``python -m geventhuey.testing.soak --help``."""

#: How a process is told the name of the application, which is another one in each run, and where its tasks write down what they do.
NAME_VARIABLE, JOURNAL_VARIABLE = 'GEVENTHUEY_SOAK', 'GEVENTHUEY_SOAK_JOURNAL'
#: Names another application instead of the soak's own, for those who test the soak itself.
APPLICATION_VARIABLE = 'GEVENTHUEY_SOAK_APPLICATION'
