import sys

from monitoring.experiment.report import main

sys.exit(main())
