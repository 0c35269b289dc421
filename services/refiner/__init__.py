"""The refiner turns candidates into one answer. A candidate's text is data to it, never an instruction."""
