"""`python -m services.refiner`."""

from services.chassis.entry import main
from services.refiner.app import application

main(application)
