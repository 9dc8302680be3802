"""The one error that conditioning raises for a request that cannot be served."""


class InvalidInputError(Exception):
    """A request's input is missing or wrong; the text is meant for whoever sent it."""

    def __init__(self, field: str, text: str) -> None:
        """Names the input tensor at fault, with its index where it has several elements.

        Args:
            field: tensor name as config.pbtxt spells it, such as `CONDITIONAL_IMAGES[0]`.
            text: what is wrong with it.
        """
        super().__init__(f"{field}: {text}")
