"""`python -m services.orchestrator`."""

from services.chassis.entry import main
from services.orchestrator.app import application

main(application)
