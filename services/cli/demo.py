"""`ensemble demo`: the main job once, on a real prompt and a real model, through all four services."""

from rich.console import Console

from services.chassis.configuration import load_configuration
from services.cli.asking import Question, ask_for_a_person
from services.cli.exit_codes import ExitCode
from services.cli.up import running

QUESTION = "What is the capital of France? Name one thing it is known for."
TIMEOUT_SECONDS = 120.0


async def demonstrate(question: str) -> ExitCode:
    """Run the services on free ports with the embedded model, ask, and print everything that came of it."""
    console = Console(stderr=True, highlight=False)
    # Whatever the environment offers, the demonstration costs nothing and shows the same on every machine.
    configuration = load_configuration(environ={})
    console.print("Starting the four services and SmolLM2-135M, a model small enough to ship: it shows the machinery, not how good an ensemble can be.")
    async with running(configuration, port_base=0) as services:
        for name, address in services.addresses().items():
            console.print(f"  {name} on {address}")
        console.print(f"\nQuestion: {question}\n", markup=False)
        return await ask_for_a_person(
            Question(prompt=question, gateway=services.gateway.address, timeout_seconds=TIMEOUT_SECONDS, profile="local", candidates=True),
            None,
            console=console,
        )
