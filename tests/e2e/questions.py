"""What the end-to-end tests ask the webserver, in GraphQL; the answers are read in `running`."""

from __future__ import annotations

LOADED = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus locationOrLoadError{__typename}}}}}"
RUNS = """
query Runs($limit: Int) { runsOrError(limit: $limit) { ... on Runs { results {
  runId jobName status creationTime tags { key value } assetSelection { path }
} } } }
"""
ERRORS = """
query Errors($run: ID!) { logsForRun(runId: $run, limit: 2000) { ... on EventConnection { events {
  __typename
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
  ... on RunFailureEvent { message error { message } }
  ... on MaterializationEvent { stepKey assetKey { path } }
  ... on ExecutionStepStartEvent { stepKey }
} } } }
"""
END = "query End($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { cursor } } }"
SENSORS = """
query Sensors($repository: RepositorySelector!, $after: Float) {
  sensorsOrError(repositorySelector: $repository) { ... on Sensors { results {
    name sensorState { id selectorId status ticks(limit: 20, afterTimestamp: $after) {
      tickId status timestamp skipReason runIds error { message }
    } }
  } } }
}
"""
TOLD = """
query Told($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 1) { metadataEntries { label
    ... on MarkdownMetadataEntry { mdStr } ... on TextMetadataEntry { text }
  } }
} } }
"""
MATERIALIZATIONS = """
query Materializations($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 1000) { runId partition metadataEntries { label ... on IntMetadataEntry { intValue } } }
} } }
"""
LAUNCH_BACKFILL = """
mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results { id status error { message } } } } }
"""
PARTITIONS = """
query Partitions($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numPartitions numMaterialized numMaterializing numFailed }
} } }
"""
CHECKS = """
query Checks($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
} } }
"""
