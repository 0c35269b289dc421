"""`ensemble demo`: the main job once, on a real prompt and a real model, through all four services."""

from pathlib import Path

from rich.console import Console

from services.chassis.configuration import Configuration, load_configuration
from services.cli.asking import ask_for_a_person
from services.cli.connection import Connection
from services.cli.question import Question
from services.cli.receipt_table import plain
from services.cli.up import running

QUESTION = "What is the capital of France? Name one thing it is known for."
TIMEOUT_SECONDS = 120.0
PROFILE = "local"


def packaged() -> Configuration:
    """Return what the package brings: whatever the environment or the working folder offer, the demonstration costs nothing and is the same everywhere."""
    return load_configuration(environ={}, folder=Path(__file__).parent)


async def demonstrate(question: str = QUESTION, *, configuration: Configuration | None = None, console: Console | None = None) -> None:
    """Run the services on free ports, ask, and print everything that came of it. Raises `CommandError` where no answer came."""
    console = console or Console(stderr=True, highlight=False)
    console.print("Starting the four services and SmolLM2-135M. A model of 135 million parameters is small enough to be shipped:")
    console.print("it is a demonstration of how the parts work together, not of how good an ensemble can be.")
    async with running(configuration or packaged(), port_base=0) as services:
        for name, address in services.addresses().items():
            console.print(f"  {name} on {address}")
        console.print(f"  model on {services.model_url}\n")
        console.print(plain(f"Question: {question}\n"))
        await ask_for_a_person(
            Question(prompt=question, gateway=Connection(address=services.gateway.address), timeout_seconds=TIMEOUT_SECONDS, profile=PROFILE, candidates=True),
            console=console,
        )
