-- Every credit once: one row a charged resource and product line.
--
-- The charged thing is the resource (kind, ID). Where several runs tell of it, the order is: its own row, then the
-- breakdown of the run that caused it, then a workflow's breakdown. Where only a total is known, what lies beyond the
-- run's own line is charged to its parse run (an edit run's: to its form detection) and marked as inferred. A workflow run by itself charges nothing.
-- A line's day is that of its resource's own creation, else of the run that caused it, else null.
WITH own AS (
    -- A run's own line; its charges say of what it is made, where they add up to it.
    SELECT
        run_id,
        kind,
        workspace_id,
        created_at,
        file_id,
        credits,
        list_filter(breakdown, lambda entry: entry.id = run_id)[1].charges AS charges
    FROM runs
    WHERE credits IS NOT NULL AND kind <> 'workflow_run'
),
told AS (
    -- What runs tell of other resources than themselves.
    SELECT
        run_id AS caused_by_run_id,
        kind = 'workflow_run' AS by_workflow,
        workspace_id,
        created_at AS caused_at,
        unnest(list_filter(breakdown, lambda entry: entry.id <> run_id)) AS entry
    FROM runs
    WHERE len(breakdown) > 0
),
chosen AS (
    -- Each resource that has no line of its own, from whoever stands nearest to it.
    SELECT *
    FROM told
    WHERE entry.credits IS NOT NULL
        AND entry.object <> 'workflow_run'
        AND NOT EXISTS (FROM own WHERE own.run_id = told.entry.id)
    QUALIFY row_number() OVER (PARTITION BY entry.id ORDER BY by_workflow, caused_by_run_id) = 1
),
causes AS (
    -- Who caused a resource, for its day where it does not tell its own.
    SELECT
        entry.id AS resource_id,
        caused_by_run_id,
        caused_at
    FROM told
    QUALIFY row_number() OVER (PARTITION BY entry.id ORDER BY by_workflow, caused_by_run_id) = 1
),
totals AS (
    -- Runs of which only the total is known. What an edit run causes is a form detection; the others cause a parse run.
    SELECT
        run_id AS caused_by_run_id,
        workspace_id,
        created_at AS caused_at,
        CASE WHEN kind = 'edit_run' THEN 'form_detection_run' ELSE 'parse_run' END AS resource_kind,
        parse_run_id,
        file_id,
        total_credits - credits AS credits
    FROM runs
    WHERE kind <> 'workflow_run' AND breakdown IS NULL AND total_credits > credits
),
inferred AS (
    -- Not where the resource is charged already; a form detection is known by its file alone.
    SELECT *
    FROM totals
    WHERE NOT EXISTS (FROM own WHERE own.run_id = totals.parse_run_id)
        AND NOT EXISTS (FROM chosen WHERE chosen.entry.id = totals.parse_run_id)
        AND NOT EXISTS (
            FROM own
            WHERE totals.resource_kind = 'form_detection_run'
                AND own.kind = 'form_detection_run'
                AND own.file_id = totals.file_id
        )
    QUALIFY row_number() OVER (PARTITION BY coalesce(parse_run_id, caused_by_run_id) ORDER BY caused_by_run_id) = 1
),
resources AS (
    SELECT
        own.kind AS resource_kind,
        own.run_id AS resource_id,
        own.workspace_id,
        own.credits,
        own.charges,
        'own' AS basis,
        coalesce(own.created_at, causes.caused_at) AS charged_at,
        causes.caused_by_run_id
    FROM own
    LEFT JOIN causes ON causes.resource_id = own.run_id
    UNION ALL
    SELECT
        chosen.entry.object,
        chosen.entry.id,
        coalesce(resource.workspace_id, chosen.workspace_id),
        chosen.entry.credits,
        chosen.entry.charges,
        CASE WHEN chosen.by_workflow THEN 'workflow' ELSE 'breakdown' END,
        coalesce(resource.created_at, chosen.caused_at),
        chosen.caused_by_run_id
    FROM chosen
    LEFT JOIN runs AS resource ON resource.run_id = chosen.entry.id
    UNION ALL
    SELECT
        inferred.resource_kind,
        inferred.parse_run_id,
        coalesce(resource.workspace_id, inferred.workspace_id),
        inferred.credits,
        NULL,
        'inferred',
        coalesce(resource.created_at, inferred.caused_at),
        inferred.caused_by_run_id
    FROM inferred
    LEFT JOIN runs AS resource ON resource.run_id = inferred.parse_run_id
),
lines AS (
    SELECT
        * EXCLUDE (charges),
        unnest(
            CASE
                WHEN len(charges) > 0 AND list_sum(list_transform(charges, lambda charge: charge.credits)) = credits
                THEN charges
                ELSE [{
                    product: NULL::VARCHAR, unit: NULL::VARCHAR, quantity: NULL::DECIMAL(18, 6),
                    credits: credits, pages: NULL::BIGINT[]
                }]
            END
        ) AS charge
    FROM resources
)
SELECT
    resource_kind,
    resource_id,
    charge.product AS product,
    charge.unit AS unit,
    charge.quantity AS quantity,
    charge.credits AS credits,
    basis,
    CAST(charged_at AT TIME ZONE 'UTC' AS DATE) AS charged_on,
    caused_by_run_id,
    workspace_id
FROM lines
