"""What every experiment is run with: files made once, trainings, jobs in processes, estimates, and the page."""
