"""Which chat template a merge gets."""

from collections import Counter
from collections.abc import Sequence

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.frame import TEMPLATE_NAME, chat_template_of
from kinship.errors import InvalidConfig

# How conversations are written for models trained on these formats.
_KNOWN = {
    "alpaca": "{% for message in messages %}"
    "{{ {'user': '### Instruction:\n', 'assistant': '### Response:\n'}.get(message['role'], '') }}"
    "{{ message['content'] | trim + '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "exaone": "{% for message in messages %}"
    "{{ '[|' + message['role'] + '|]' + message['content'] }}"
    "{{ '\n' if message['role'] == 'user' else '[|endofturn|]\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}",
    "llama3": "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token }}"
    "{% else %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% endif %}"
    "{% endfor %}",
}


def chat_template_files(wanted: str, models: Sequence[Checkpoint]) -> dict[str, str]:
    """The file to write for ``wanted``: ``auto``, a name, or a template itself; none where no model has a template.

    ``auto`` is the template that most models have, the first where several are as common. Raises `InvalidConfig`.
    """
    if wanted == "auto":
        found = Counter(template for model in models if (template := chat_template_of(model)))
        return {TEMPLATE_NAME: found.most_common(1)[0][0]} if found else {}
    if "{" in wanted:
        return {TEMPLATE_NAME: wanted}
    if wanted not in _KNOWN:
        raise InvalidConfig(
            f"There is no chat template {wanted!r} here.",
            hint=f"Say auto, {', '.join(_KNOWN)}, or write the Jinja template itself.",
        )
    return {TEMPLATE_NAME: _KNOWN[wanted]}
