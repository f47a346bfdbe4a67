-- The runs whose credits nothing tells, one row each, and why. Unknown is not zero: the API reports no usage before a
-- run has finished, for one that failed or was cancelled, for one created before 2025-10-07 (where a run does not tell
-- its creation, its cause's, its first run's or its file's counts), or for customers on legacy billing.
SELECT
    resource_id AS run_id,
    resource_kind AS kind,
    unknown_why AS why,
    charged_on AS created_on,
    * EXCLUDE (
        resource_kind, resource_id, product, unit, quantity, credits, basis, charged_on, charged_at, line,
        is_first_of_product, unknown_why
    )
FROM credit_lines
WHERE basis = 'unknown'
