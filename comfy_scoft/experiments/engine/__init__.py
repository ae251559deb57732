"""What every experiment is run with: files made once, trainings, jobs in processes, estimates, and the written page.

An experiment is a definition: its arms, the data they are compared on, its metrics and its page's sections.
"""
