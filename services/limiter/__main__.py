"""`python -m services.limiter`."""

from services.chassis.entry import main
from services.limiter.app import application

main(rereading=application)
