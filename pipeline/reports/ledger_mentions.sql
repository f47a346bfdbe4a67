-- Which resources a day's runs say something of, by hashes: `id` of the resource, `fact` of the row that says it.
-- What a row says can only change the ledger's lines of the resources named here; equal hashes of different IDs only
-- make more be worked out anew than need be.
WITH facts AS (
    SELECT
        run_id,
        kind,
        breakdown,
        parse_run_id,
        file_id,
        hash(
            run_id, kind, status, workspace_id, credits, total_credits, breakdown, created_at, initial_run_at,
            processor_id, processor_name, processor_version, file_id, file_name, file_type, file_created_at,
            parse_run_id, source, metadata
        ) AS fact
    FROM runs
)
SELECT
    hash(run_id) AS id,
    fact
FROM facts
UNION ALL
SELECT
    hash(resource_id),
    fact
FROM (
    SELECT
        run_id,
        fact,
        unnest(list_transform(breakdown, lambda entry: entry.id)) AS resource_id
    FROM facts
)
WHERE resource_id <> run_id
UNION ALL
SELECT
    hash(parse_run_id),
    fact
FROM facts
WHERE breakdown IS NULL AND parse_run_id IS NOT NULL
UNION ALL
-- What an edit run's total holds is inferred by its file.
SELECT
    hash(file_id),
    fact
FROM facts
WHERE kind IN ('edit_run', 'form_detection_run') AND file_id IS NOT NULL
