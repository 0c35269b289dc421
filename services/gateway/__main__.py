"""`python -m services.gateway`."""

from services.chassis.entry import main
from services.gateway.app import application

main(rereading=application)
