"""Every name that telemetry uses: attributes, metrics, span names.

Sources: OpenTelemetry semantic conventions for RPC and, at v1.41.1, for generative AI; names that begin with "ensemble." are our own. They stand here rather
than coming from a package because those conventions still move, and a dashboard must not break with an upgrade of a dependency.
"""

from typing import Final

# Resource
SERVICE_NAME: Final = "service.name"

# RPC
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
RPC_SERVER_CALL_DURATION: Final = "rpc.server.call.duration"
RPC_CLIENT_CALL_DURATION: Final = "rpc.client.call.duration"

# Generative AI
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
GEN_AI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"

# Our own
ENSEMBLE_ADMISSION_WAIT: Final = "ensemble.admission.wait"
ENSEMBLE_ADMISSION_REFUSALS: Final = "ensemble.admission.refusals"
ENSEMBLE_REASON: Final = "ensemble.reason"
ENSEMBLE_TENANT: Final = "ensemble.tenant"
ENSEMBLE_MEMBER: Final = "ensemble.member"
ENSEMBLE_ATTEMPT: Final = "ensemble.attempt"
ENSEMBLE_HEDGE: Final = "ensemble.hedge"
ENSEMBLE_OUTCOME: Final = "ensemble.outcome"
ENSEMBLE_PANEL_SIZE: Final = "ensemble.panel.size"
ENSEMBLE_PANEL_QUORUM: Final = "ensemble.panel.quorum"
ENSEMBLE_PANEL_SUCCEEDED: Final = "ensemble.panel.succeeded"
ENSEMBLE_JUDGE_DISPLAY_INDEX: Final = "ensemble.judge.display_index"
ENSEMBLE_JUDGE_CHOSEN: Final = "ensemble.judge.chosen"
ENSEMBLE_JUDGE_LENGTH_CORRELATION: Final = "ensemble.judge.length_correlation"
ENSEMBLE_JUDGE_MODEL: Final = "ensemble.judge.model"
ENSEMBLE_CANDIDATE_MODEL: Final = "ensemble.candidate.model"
ENSEMBLE_CANDIDATE_DISPLAY_INDEX: Final = "ensemble.candidate.display_index"
ENSEMBLE_CANDIDATE_RANK: Final = "ensemble.candidate.rank"
ENSEMBLE_CANDIDATE_LENGTH: Final = "ensemble.candidate.length"
